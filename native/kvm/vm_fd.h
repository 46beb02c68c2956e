// A KVM VM: the VM ioctls (Documentation/virt/kvm/api.rst), one method each, no policy.
#pragma once

#include <cstdint>
#include <span>

#include "kvm/fd.h"
#include "kvm/uapi.h"
#include "kvm/vcpu_fd.h"

namespace kvmsnap {

class VmFd {
 public:
  VmFd() = default;
  VmFd(UniqueFd fd, size_t vcpu_mmap_size) : fd_(std::move(fd)), vcpu_mmap_size_(vcpu_mmap_size) {}

  explicit operator bool() const { return static_cast<bool>(fd_); }

  /// KVM_CREATE_VCPU. `id` is the APIC id.
  VcpuFd create_vcpu(uint32_t id) const;
  /// KVM_SET_USER_MEMORY_REGION. Size 0 deletes the slot.
  void set_user_memory_region(const kvm_userspace_memory_region& region) const;
  /// KVM_ENABLE_CAP with one argument.
  void enable_capability(uint32_t capability, uint64_t argument) const;
  /// KVM_SET_TSS_ADDR and KVM_SET_IDENTITY_MAP_ADDR: pages that VMX needs to run real mode where it
  /// has no unrestricted guest. Before the first vCPU; nothing elsewhere.
  void set_tss_address(uint64_t gpa) const;
  void set_identity_map_address(uint64_t gpa) const;
  /// KVM_CREATE_IRQCHIP (KVM_CAP_IRQCHIP).
  void create_irqchip() const;
  /// KVM_CREATE_PIT2 (KVM_CAP_PIT2), with a dummy for the speaker port.
  void create_pit2() const;
  /// KVM_IRQ_LINE (KVM_CAP_IRQCHIP). Synchronous: the irqchip's state has it on return.
  void irq_line(uint32_t gsi, bool level) const;
  /// KVM_GET_IRQCHIP, `chip_id` KVM_IRQCHIP_PIC_MASTER, _PIC_SLAVE or _IOAPIC.
  kvm_irqchip irqchip(uint32_t chip_id) const;
  void set_irqchip(const kvm_irqchip& chip) const;
  kvm_pit_state2 pit2() const;
  void set_pit2(const kvm_pit_state2& pit) const;
  kvm_clock_data clock() const;
  void set_clock(const kvm_clock_data& clock) const;
  /// KVM_GET_DIRTY_LOG: one bit a page. Without manual protection it also re-arms the tracking.
  void dirty_log(uint32_t slot, std::span<uint64_t> bitmap) const;
  /// KVM_CLEAR_DIRTY_LOG (KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2).
  void clear_dirty_log(uint32_t slot, uint64_t first_page, uint32_t pages,
                       std::span<uint64_t> bitmap) const;
  /// KVM_RESET_DIRTY_RINGS (KVM_CAP_DIRTY_LOG_RING): watches pages again whose entries were taken.
  /// Returns how many entries it emptied, in the rings of all vCPUs: fewer when a signal came.
  uint64_t reset_dirty_rings() const;
  /// KVM_CHECK_EXTENSION on the VM, for capabilities that differ from VM to VM.
  int check_extension(int capability) const;

 private:
  UniqueFd fd_;
  size_t vcpu_mmap_size_ = 0;
};

}  // namespace kvmsnap
