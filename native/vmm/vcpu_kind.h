// What is the same for all vCPUs of one kind, found out on the first.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "kvm/vcpu_fd.h"

namespace kvmsnap {

/// What decides which MSRs a vCPU has.
struct VcpuTraits {
  std::span<const uint8_t> cpuid;
  /// Whether it has an in-kernel LAPIC.
  bool irqchip = false;
  /// MCG_CAP: its machine-check banks.
  uint64_t mcg_cap = 0;
};

/// Thread-safe, and lives as long as anybody has it.
class VcpuKind {
 public:
  /// The kind of a vCPU. A kind that is not known yet is looked at on `fd` if that `is_new`, which
  /// means that nothing but those traits was ever set, else on a vCPU made for it.
  static std::shared_ptr<const VcpuKind> of(const VcpuFd& fd, bool is_new,
                                            const VcpuTraits& traits);

  /// The MSRs that hold state, in the order in which they are to be set.
  const std::vector<uint32_t>& msrs() const { return msrs_; }
  /// Their values in a new vCPU, in the same order.
  const std::vector<kvm_msr_entry>& new_msrs() const { return new_msrs_; }
  /// Whether VM_CR is one of them.
  bool has_vm_cr() const { return has_vm_cr_; }

 private:
  explicit VcpuKind(const VcpuFd& fd);

  std::vector<uint32_t> msrs_;
  std::vector<kvm_msr_entry> new_msrs_;
  bool has_vm_cr_;
};

}  // namespace kvmsnap
