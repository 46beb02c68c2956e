// A KVM vCPU: the vCPU ioctls (Documentation/virt/kvm/api.rst), one method each, no policy.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kvm/fd.h"
#include "kvm/mapping.h"
#include "kvm/uapi.h"

namespace kvmsnap {

class VcpuFd {
 public:
  VcpuFd() = default;
  VcpuFd(UniqueFd fd, size_t mmap_size);

  /// The page shared with the kernel that describes each exit.
  kvm_run& run() const { return *reinterpret_cast<kvm_run*>(run_.get()); }
  /// Bytes of `run()` and of the data pages behind it, which exits point into.
  size_t run_size() const { return run_.size(); }

  /// The vCPU's dirty ring of `bytes` (KVM_CAP_DIRTY_LOG_RING, enabled before the vCPU was made).
  Mapping map_dirty_ring(size_t bytes) const;

  /// KVM_RUN. Returns 0 on an exit, or the errno: EINTR and EAGAIN are part of normal life.
  int enter() const;

  kvm_regs regs() const;
  void set_regs(const kvm_regs& regs) const;
  /// KVM_GET_SREGS2 (KVM_CAP_SREGS2).
  kvm_sregs2 sregs2() const;
  void set_sregs2(const kvm_sregs2& sregs) const;
  /// KVM_GET_XSAVE2 (KVM_CAP_XSAVE2): as many bytes as that capability says.
  void xsave2(std::span<uint8_t> bytes) const;
  /// KVM_SET_XSAVE. The kernel reads as many bytes as KVM_CAP_XSAVE2 says.
  void set_xsave(std::span<const uint8_t> bytes) const;
  kvm_xcrs xcrs() const;
  void set_xcrs(const kvm_xcrs& xcrs) const;
  kvm_debugregs debugregs() const;
  void set_debugregs(const kvm_debugregs& debugregs) const;
  /// KVM_GET_MSRS: fills `data` of the entries; returns how many it read before one failed.
  size_t msrs(std::vector<kvm_msr_entry>& entries) const;
  /// KVM_SET_MSRS: returns how many it set before one failed.
  size_t set_msrs(std::span<const kvm_msr_entry> entries) const;
  kvm_lapic_state lapic() const;
  void set_lapic(const kvm_lapic_state& lapic) const;
  kvm_mp_state mp_state() const;
  void set_mp_state(const kvm_mp_state& state) const;
  kvm_vcpu_events vcpu_events() const;
  void set_vcpu_events(const kvm_vcpu_events& events) const;
  void set_cpuid2(std::span<const kvm_cpuid_entry2> entries) const;
  /// KVM_X86_SETUP_MCE (KVM_CAP_MCE): MCG_CAP, whose low byte is the number of banks. Sets all that
  /// they hold to what a CPU has when it is switched on, as far as KVM does.
  void setup_mce(uint64_t mcg_cap) const;
  /// KVM_GET_TSC_KHZ; 0 when KVM cannot tell.
  uint32_t tsc_khz() const;
  /// KVM_SET_TSC_KHZ. False when the host can neither scale nor reach it.
  bool set_tsc_khz(uint32_t khz) const;
  /// KVM_KVMCLOCK_CTRL: tells the guest's watchdog that it was stopped. Does nothing when the guest
  /// has not enabled kvmclock.
  void kvmclock_ctrl() const;
  /// KVM_SET_SIGNAL_MASK: while it is set, KVM_RUN blocks no signal, whatever the thread does.
  void unblock_signals_in_guest(bool unblock) const;
  /// KVM_SET_GUEST_DEBUG (KVM_CAP_SET_GUEST_DEBUG).
  void set_guest_debug(const kvm_guest_debug& debug) const;

 private:
  UniqueFd fd_;
  Mapping run_;
};

}  // namespace kvmsnap
