// A machine's KVM memory slots and their dirty logs. In jobs only.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kvm/vm_fd.h"
#include "memory/guest_memory.h"

namespace kvmsnap {

class MemorySlots {
 public:
  MemorySlots(const VmFd& vm, GuestMemory& memory) : vm_(vm), memory_(memory) {}

  /// Shows KVM a region that `memory` has already.
  void map(const RegionSpec& spec) const;
  /// A region of zeros.
  void add(const RegionSpec& spec);
  void remove(uint32_t slot);
  void set_flags(uint32_t slot, uint32_t flags);

  /// KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2: reading a log no longer clears it. Applies to slots whose
  /// log is switched on from then on; never with KVM_DIRTY_LOG_INITIALLY_SET.
  void set_manual(bool manual);
  bool manual() const { return manual_; }
  /// One bit a page, joined with what the VMM wrote itself.
  std::vector<uint64_t> read_log(uint32_t slot);
  /// Throws ERR_STATE unless `manual`, ERR_INVALID_ARGUMENT for a range that KVM would refuse.
  void clear_log(uint32_t slot, uint64_t first_page, uint32_t pages, std::span<uint64_t> bitmap);

 private:
  const VmFd& vm_;
  GuestMemory& memory_;
  bool manual_ = false;
};

}  // namespace kvmsnap
