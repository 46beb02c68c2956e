#include "kvm/kvm.h"

#include <fcntl.h>
#include <sys/ioctl.h>

#include <mutex>
#include <string>

#include "kvm/error.h"
#include "kvm/flexible.h"

namespace kvmsnap {

namespace {

// More than any kernel answers with (PVM 75, current AMD and Intel about 50).
constexpr uint32_t kMaxCpuidEntries = 256;

[[noreturn]] void throw_no_kvm(int error_number) {
  std::string what;
  if (error_number == ENOENT) {
    what =
        "/dev/kvm does not exist: load the kvm_intel or kvm_amd module, or, in a virtual machine, "
        "turn nested virtualisation on in its host";
  } else if (error_number == EACCES || error_number == EPERM) {
    what =
        "/dev/kvm may not be opened by this user: add the user to the group kvm (usermod -aG kvm "
        "USER, then log in again), or run as root";
  } else {
    what = std::string("/dev/kvm cannot be opened: ") + std::strerror(error_number);
  }
  throw Error("ERR_NO_KVM", what, "open", error_number);
}

}  // namespace

const Kvm& Kvm::instance() {
  static std::mutex mutex;
  // Never freed: detached vCPU threads may outlive static destruction.
  static const Kvm* kvm = nullptr;
  std::lock_guard lock(mutex);
  if (kvm == nullptr) {
    UniqueFd fd(::open("/dev/kvm", O_RDWR | O_CLOEXEC));
    if (!fd) throw_no_kvm(errno);
    kvm = new Kvm(std::move(fd));
  }
  return *kvm;
}

Kvm::Kvm(UniqueFd fd) : fd_(std::move(fd)) {
  if (api_version() != KVM_API_VERSION) {
    throw Error("ERR_NO_KVM", "/dev/kvm answers with API version " + std::to_string(api_version()) +
                                  ", only 12 is known: update the kernel");
  }
  int size = ::ioctl(fd_.get(), KVM_GET_VCPU_MMAP_SIZE, 0);
  if (size < 0) throw_ioctl("KVM_GET_VCPU_MMAP_SIZE");
  vcpu_mmap_size_ = static_cast<size_t>(size);
}

int Kvm::api_version() const { return ::ioctl(fd_.get(), KVM_GET_API_VERSION, 0); }

int Kvm::check_extension(int capability) const {
  int value = ::ioctl(fd_.get(), KVM_CHECK_EXTENSION, capability);
  if (value < 0) throw_ioctl("KVM_CHECK_EXTENSION");
  return value;
}

std::vector<kvm_cpuid_entry2> Kvm::supported_cpuid() const {
  Flexible<kvm_cpuid2, kvm_cpuid_entry2> list(kMaxCpuidEntries);
  list->nent = kMaxCpuidEntries;
  if (::ioctl(fd_.get(), KVM_GET_SUPPORTED_CPUID, list.get()) < 0) {
    throw_ioctl("KVM_GET_SUPPORTED_CPUID");
  }
  return list.entries(list->nent);
}

std::vector<uint32_t> Kvm::msr_index_list() const {
  kvm_msr_list probe = {};
  // Fails with E2BIG and the number that is needed.
  if (::ioctl(fd_.get(), KVM_GET_MSR_INDEX_LIST, &probe) < 0 && errno != E2BIG) {
    throw_ioctl("KVM_GET_MSR_INDEX_LIST");
  }
  Flexible<kvm_msr_list, uint32_t> list(probe.nmsrs);
  list->nmsrs = probe.nmsrs;
  if (::ioctl(fd_.get(), KVM_GET_MSR_INDEX_LIST, list.get()) < 0) {
    throw_ioctl("KVM_GET_MSR_INDEX_LIST");
  }
  return list.entries(list->nmsrs);
}

VmFd Kvm::create_vm() const {
  int fd = ::ioctl(fd_.get(), KVM_CREATE_VM, 0);
  if (fd < 0) throw_ioctl("KVM_CREATE_VM");
  return VmFd(UniqueFd(fd), vcpu_mmap_size_);
}

}  // namespace kvmsnap
