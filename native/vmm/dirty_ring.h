// The dirty rings of a machine's vCPUs (Documentation/virt/kvm/api.rst 8.29, KVM_CAP_DIRTY_LOG_RING
// and _ACQ_REL): KVM writes down the pages that each vCPU dirties, in slots that log.
#pragma once

#include <chrono>
#include <cstdint>
#include <mutex>
#include <vector>

#include "kvm/mapping.h"
#include "kvm/vcpu_fd.h"
#include "kvm/vm_fd.h"
#include "memory/tracker.h"

namespace kvmsnap {

/// Thread-safe: a vCPU whose ring is full drains it on its own thread. Pages wait here meanwhile.
class DirtyRings {
 public:
  /// Before the first vCPU. Throws ERR_KVM_CAPABILITY, or ERR_INVALID_ARGUMENT for a number of
  /// entries that KVM does not take.
  DirtyRings(const VmFd& vm, uint32_t entries);
  /// Each vCPU, as it is made.
  void add(const VcpuFd& vcpu);

  /// From now on pages of these slots are kept, and all others forgotten; none by default.
  void keep(std::vector<DirtySlot> slots);
  /// On the thread of a vCPU that came back because its ring is full.
  void drain_full();
  /// ORs the pages of the slots given to `keep`, and watches them again.
  void take(std::vector<DirtySlot>& slots);
  /// The time that went into full rings since the last call.
  std::chrono::nanoseconds take_lost();

 private:
  struct Ring {
    Mapping entries;
    /// Where the next entry is taken. Entries are numbered without end.
    uint32_t next = 0;
  };

  /// With `mutex_` held.
  void drain();
  void mark(uint32_t slot, uint64_t page);

  const VmFd& vm_;
  uint32_t entries_;
  std::mutex mutex_;
  std::vector<Ring> rings_;
  std::vector<DirtySlot> kept_;
  std::chrono::nanoseconds lost_{0};
};

}  // namespace kvmsnap
