#include "memory/userfault.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kvm/error.h"

namespace kvmsnap {

namespace {

// include/uapi/linux/userfaultfd.h of Linux 6.7; Debian 12's header is older.
constexpr __u64 kFeatureWpUnpopulated = 1 << 13;
constexpr __u64 kFeatureWpAsync = 1 << 15;

constexpr const char* kInstead = "use the tracker bitmap, which every KVM has";

// Faults come from inside KVM, that is, from kernel mode: without privilege the system call gives
// no descriptor for those, but /dev/userfaultfd does to whom may open it.
UniqueFd open_userfaultfd() {
  UniqueFd fd(static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK)));
  if (fd) return fd;
  int error_number = errno;
  UniqueFd device(::open("/dev/userfaultfd", O_RDWR | O_CLOEXEC));
  if (device) {
    fd = UniqueFd(::ioctl(device.get(), USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK));
    if (fd) return fd;
  }
  errno = error_number;
  throw_system("userfaultfd", std::string("it needs read and write access to /dev/userfaultfd, or "
                                          "vm.unprivileged_userfaultfd = 1; or ") +
                                  kInstead);
}

__u64 features_of(WriteFault mode) {
  __u64 features =
      UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_HUGETLBFS_SHMEM | kFeatureWpUnpopulated;
  return mode == WriteFault::Async ? features | kFeatureWpAsync : features;
}

}  // namespace

Userfault::Userfault(WriteFault mode) : fd_(open_userfaultfd()) {
  uffdio_api api = {.api = UFFD_API, .features = features_of(mode), .ioctls = 0};
  if (::ioctl(fd_.get(), UFFDIO_API, &api) < 0) {
    throw_system("UFFDIO_API", std::string("this needs Linux ") +
                                   (mode == WriteFault::Async ? "6.7" : "6.4") + "; " + kInstead);
  }
}

void Userfault::watch(const uint8_t* host, uint64_t size) const {
  uffdio_register request = {.range = {reinterpret_cast<uintptr_t>(host), size},
                             .mode = UFFDIO_REGISTER_MODE_WP,
                             .ioctls = 0};
  if (::ioctl(fd_.get(), UFFDIO_REGISTER, &request) < 0) {
    throw_system("UFFDIO_REGISTER",
                 "memory mapped from a snapshot's files cannot be watched by uffd-wp: use the "
                 "tracker pagemap, or bitmap");
  }
}

void Userfault::forget(const uint8_t* host, uint64_t size) const {
  uffdio_range range = {reinterpret_cast<uintptr_t>(host), size};
  // EINVAL: something else is mapped there by now, and nobody waits for it.
  if (::ioctl(fd_.get(), UFFDIO_UNREGISTER, &range) < 0 && errno != EINVAL) {
    throw_system("UFFDIO_UNREGISTER");
  }
}

void Userfault::protect(uint64_t address, uint64_t size, bool on) const {
  uffdio_writeprotect request = {.range = {address, size},
                                 .mode = on ? __u64{UFFDIO_WRITEPROTECT_MODE_WP} : __u64{0}};
  // EAGAIN: mappings of the process are changing just now.
  while (::ioctl(fd_.get(), UFFDIO_WRITEPROTECT, &request) < 0) {
    if (errno != EAGAIN && errno != EINTR) throw_system("UFFDIO_WRITEPROTECT");
  }
}

void Userfault::wake(const uint8_t* host, uint64_t size) const {
  uffdio_range range = {reinterpret_cast<uintptr_t>(host), size};
  if (::ioctl(fd_.get(), UFFDIO_WAKE, &range) < 0 && errno != EINVAL && errno != ENOENT) {
    throw_system("UFFDIO_WAKE");
  }
}

}  // namespace kvmsnap
