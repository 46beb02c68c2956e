#include "kvm/vm_fd.h"

#include <sys/ioctl.h>

#include "kvm/error.h"

namespace kvmsnap {

VcpuFd VmFd::create_vcpu(uint32_t id) const {
  int fd = ::ioctl(fd_.get(), KVM_CREATE_VCPU, static_cast<unsigned long>(id));
  if (fd < 0) throw_ioctl("KVM_CREATE_VCPU", "vCPU " + std::to_string(id));
  return VcpuFd(UniqueFd(fd), vcpu_mmap_size_);
}

void VmFd::set_user_memory_region(const kvm_userspace_memory_region& region) const {
  if (::ioctl(fd_.get(), KVM_SET_USER_MEMORY_REGION, &region) < 0) {
    throw_ioctl("KVM_SET_USER_MEMORY_REGION", "slot " + std::to_string(region.slot));
  }
}

void VmFd::enable_capability(uint32_t capability, uint64_t argument) const {
  kvm_enable_cap enable = {.cap = capability, .args = {argument}};
  if (::ioctl(fd_.get(), KVM_ENABLE_CAP, &enable) < 0) {
    throw_ioctl("KVM_ENABLE_CAP", "capability " + std::to_string(capability));
  }
}

void VmFd::set_tss_address(uint64_t gpa) const {
  if (::ioctl(fd_.get(), KVM_SET_TSS_ADDR, static_cast<unsigned long>(gpa)) < 0) {
    throw_ioctl("KVM_SET_TSS_ADDR");
  }
}

void VmFd::set_identity_map_address(uint64_t gpa) const {
  __u64 address = gpa;
  if (::ioctl(fd_.get(), KVM_SET_IDENTITY_MAP_ADDR, &address) < 0) {
    throw_ioctl("KVM_SET_IDENTITY_MAP_ADDR");
  }
}

void VmFd::create_irqchip() const {
  if (::ioctl(fd_.get(), KVM_CREATE_IRQCHIP, 0) < 0) throw_ioctl("KVM_CREATE_IRQCHIP");
}

void VmFd::create_pit2() const {
  kvm_pit_config config = {.flags = KVM_PIT_SPEAKER_DUMMY};
  if (::ioctl(fd_.get(), KVM_CREATE_PIT2, &config) < 0) throw_ioctl("KVM_CREATE_PIT2");
}

void VmFd::irq_line(uint32_t gsi, bool level) const {
  kvm_irq_level line = {.level = level ? 1u : 0u};
  line.irq = gsi;
  if (::ioctl(fd_.get(), KVM_IRQ_LINE, &line) < 0) throw_ioctl("KVM_IRQ_LINE");
}

kvm_irqchip VmFd::irqchip(uint32_t chip_id) const {
  kvm_irqchip chip = {.chip_id = chip_id};
  if (::ioctl(fd_.get(), KVM_GET_IRQCHIP, &chip) < 0) throw_ioctl("KVM_GET_IRQCHIP");
  return chip;
}

void VmFd::set_irqchip(const kvm_irqchip& chip) const {
  if (::ioctl(fd_.get(), KVM_SET_IRQCHIP, &chip) < 0) throw_ioctl("KVM_SET_IRQCHIP");
}

kvm_pit_state2 VmFd::pit2() const {
  kvm_pit_state2 pit = {};
  if (::ioctl(fd_.get(), KVM_GET_PIT2, &pit) < 0) throw_ioctl("KVM_GET_PIT2");
  return pit;
}

void VmFd::set_pit2(const kvm_pit_state2& pit) const {
  if (::ioctl(fd_.get(), KVM_SET_PIT2, &pit) < 0) throw_ioctl("KVM_SET_PIT2");
}

kvm_clock_data VmFd::clock() const {
  kvm_clock_data clock = {};
  if (::ioctl(fd_.get(), KVM_GET_CLOCK, &clock) < 0) throw_ioctl("KVM_GET_CLOCK");
  return clock;
}

void VmFd::set_clock(const kvm_clock_data& clock) const {
  if (::ioctl(fd_.get(), KVM_SET_CLOCK, &clock) < 0) throw_ioctl("KVM_SET_CLOCK");
}

void VmFd::dirty_log(uint32_t slot, std::span<uint64_t> bitmap) const {
  kvm_dirty_log log = {.slot = slot};
  log.dirty_bitmap = bitmap.data();
  if (::ioctl(fd_.get(), KVM_GET_DIRTY_LOG, &log) < 0) {
    throw_ioctl("KVM_GET_DIRTY_LOG",
                errno == ENOENT ? "the slot does not log: set its flag 1 first" : "");
  }
}

void VmFd::clear_dirty_log(uint32_t slot, uint64_t first_page, uint32_t pages,
                           std::span<uint64_t> bitmap) const {
  kvm_clear_dirty_log clear = {.slot = slot, .num_pages = pages, .first_page = first_page};
  clear.dirty_bitmap = bitmap.data();
  if (::ioctl(fd_.get(), KVM_CLEAR_DIRTY_LOG, &clear) < 0) throw_ioctl("KVM_CLEAR_DIRTY_LOG");
}

uint64_t VmFd::reset_dirty_rings() const {
  int emptied = ::ioctl(fd_.get(), KVM_RESET_DIRTY_RINGS, 0);
  if (emptied < 0 && errno == EINTR) return 0;
  if (emptied < 0) throw_ioctl("KVM_RESET_DIRTY_RINGS");
  return static_cast<uint64_t>(emptied);
}

int VmFd::check_extension(int capability) const {
  int value = ::ioctl(fd_.get(), KVM_CHECK_EXTENSION, capability);
  if (value < 0) throw_ioctl("KVM_CHECK_EXTENSION");
  return value;
}

}  // namespace kvmsnap
