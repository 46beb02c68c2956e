#include "vmm/translations.h"

#include <fcntl.h>
#include <unistd.h>

#include "kvm/kvm.h"
#include "memory/region_spec.h"

namespace kvmsnap {

namespace {

// Two pages in the hole below 4 GiB, below those of vmm/machine.cc. What a guest finds there is a
// page of zeros that it cannot write.
constexpr uint64_t kSlotAddress = 0xFFFB8000;

bool parameter_is_set(const char* path) {
  UniqueFd file(::open(path, O_RDONLY | O_CLOEXEC));
  char value = 0;
  return file && ::read(file.get(), &value, 1) == 1 && (value == 'Y' || value == '1');
}

}  // namespace

bool has_nested_paging() {
  static const bool nested = parameter_is_set("/sys/module/kvm_intel/parameters/ept") ||
                             parameter_is_set("/sys/module/kvm_amd/parameters/npt");
  return nested;
}

uint32_t reserved_slot() {
  static const uint32_t slot =
      static_cast<uint32_t>(Kvm::instance().check_extension(KVM_CAP_NR_MEMSLOTS)) - 1;
  return slot;
}

void Translations::forget(const VmFd& vm) {
  if (has_nested_paging()) return;
  bool first = page_.get() == nullptr;
  if (first) page_ = Mapping(kPageSize, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1);
  auto put = [&] {
    moved_ = !moved_;
    vm.set_user_memory_region({.slot = reserved_slot(),
                               .flags = KVM_MEM_READONLY,
                               .guest_phys_addr = kSlotAddress + (moved_ ? kPageSize : 0),
                               .memory_size = kPageSize,
                               .userspace_addr = reinterpret_cast<uintptr_t>(page_.get())});
  };
  if (first) put();
  put();
}

}  // namespace kvmsnap
