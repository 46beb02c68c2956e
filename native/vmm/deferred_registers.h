// Registers that KVM_RUN sets itself before it enters the guest (KVM_CAP_SYNC_REGS): no ioctl for
// them.
#pragma once

#include "kvm/vcpu_fd.h"

namespace kvmsnap {

/// What is deferred stays so until the vCPU is entered. Whoever wants to see it sooner, or changes
/// other state that hangs together with it, flushes first.
class DeferredRegisters {
 public:
  explicit DeferredRegisters(const VcpuFd& fd) : fd_(fd) {}

  /// For values that KVM has taken before: those that it refuses fail KVM_RUN, not this. The vCPU
  /// must be runnable, as KVM_RUN does not look at them otherwise.
  void defer(const kvm_regs& regs, const kvm_vcpu_events& events);
  /// The special registers too. False, and nothing is done, for a vCPU whose page-directory
  /// pointers are registers (PAE paging): kvm_sregs has no place for those.
  bool defer(const kvm_sregs2& sregs);
  /// Sets by ioctl what was deferred.
  void flush();
  /// KVM_RUN. As VcpuFd::enter.
  int enter();

 private:
  const VcpuFd& fd_;
  /// Which of `kvm_run::s.regs` are deferred.
  uint64_t mask_ = 0;
  /// The special registers among them, for KVM_SET_SREGS2.
  kvm_sregs2 sregs_ = {};
};

}  // namespace kvmsnap
