// What KVM and the CPU remember of a guest's page tables, when memory goes back under their hands.
#pragma once

#include "kvm/mapping.h"
#include "kvm/vm_fd.h"

namespace kvmsnap {

/// The number of a slot that is not the machine's: the highest that KVM has.
uint32_t reserved_slot();

/// Whether the CPU walks the guest's page tables itself (EPT, NPT).
bool has_nested_paging();

/// Without nested paging (PVM; VMX and SVM with ept=0, npt=0) KVM keeps shadows of the guest's page
/// tables. It sees the guest write to those, but not the host, so that a page table that a reset
/// puts back would go on as it was. The one call that drops all shadows is the moving or removal of
/// a memory slot, any slot: 20 µs for one that holds a page.
///
/// With nested paging there is nothing to drop but the vCPUs' TLBs (VcpuRegisters::load).
class Translations {
 public:
  /// Once memory has been put back, with no vCPU in the guest. The first time, in a VM with an
  /// irqchip, it may take 20 ms: until the kernel is through with what the irqchip's creation left.
  void forget(const VmFd& vm);

 private:
  Mapping page_;
  bool moved_ = false;
};

}  // namespace kvmsnap
