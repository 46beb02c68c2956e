// The dirty rings of a machine's vCPUs (Documentation/virt/kvm/api.rst 8.29, KVM_CAP_DIRTY_LOG_RING
// and _ACQ_REL): KVM writes down the pages that each vCPU dirties, in slots that log.
#pragma once

#include <chrono>
#include <cstdint>
#include <mutex>
#include <optional>
#include <vector>

#include "kvm/mapping.h"
#include "kvm/vcpu_fd.h"
#include "kvm/vm_fd.h"
#include "memory/tracker.h"

namespace kvmsnap {

/// Thread-safe: a vCPU whose ring is full drains it on its own thread. Pages wait here meanwhile.
///
/// KVM stops a vCPU some 64 entries before its ring is full, but looks only when it enters the
/// guest. A KVM that emulates instructions without entering it in between (PVM, in ring 0) writes
/// on over entries that nobody has taken, and counts them as used for ever. Then every page may
/// have been written, and those whose entries are gone are not watched: so all pages of all slots
/// are told, and all are watched anew.
class DirtyRings {
 public:
  /// Before the first vCPU. Throws ERR_KVM_CAPABILITY, or ERR_INVALID_ARGUMENT for a number of
  /// entries that KVM does not take.
  DirtyRings(const VmFd& vm, uint32_t entries);
  /// Each vCPU, as it is made.
  void add(const VcpuFd& vcpu);

  /// From now on pages of these slots are kept, and all others forgotten; none by default.
  void keep(std::vector<DirtySlot> slots);
  /// On the thread of a vCPU that came back because its ring is full; `index` is the order in which
  /// it was added.
  void drain_full(unsigned index);
  /// ORs the pages of the slots given to `keep`, and watches them again. False after an overrun:
  /// they are all pages, and what watches them is to be switched off and on.
  bool take(std::vector<DirtySlot>& slots);
  /// The time that went into full rings since the last call.
  std::chrono::nanoseconds take_lost();

 private:
  struct Ring {
    Mapping entries;
    /// The next entry that KVM will empty. Entries are numbered without end.
    uint32_t next = 0;
    /// `next` at the vCPU's last exit for a full ring.
    uint32_t next_when_full = 0;
    bool was_full = false;
    /// Entries that were skipped, one full ring after the other, since it last was not.
    uint64_t skipped = 0;
    /// After an overrun: the next entry that KVM will write is further on than `next`, by less than
    /// a whole ring once KVM no longer says that it is full, and there is nothing in between.
    bool gap = false;
  };

  // All with `mutex_` held, and the ring's vCPU not in KVM_RUN: KVM's side of it stands.
  void drain(Ring& ring);
  /// Gives back the entries from `next` to `end`. Those that KVM has not written hold no page.
  void give_back(Ring& ring, uint32_t end);
  /// Where the entries that KVM has written begin, from `next` on; `next` if they go all around.
  std::optional<uint32_t> first_written(Ring& ring) const;
  /// KVM says that it is full, and is wrong. Throws ERR_IOCTL when it goes on saying so.
  void relieve(Ring& ring);
  void overran(Ring& ring);
  /// Lets KVM empty the entries that were given back.
  void empty();
  kvm_dirty_gfn& entry(Ring& ring, uint32_t number) const;
  bool is_dirty(Ring& ring, uint32_t number) const;
  void mark(uint32_t slot, uint64_t page);

  const VmFd& vm_;
  uint32_t entries_;
  std::mutex mutex_;
  std::vector<Ring> rings_;
  std::vector<DirtySlot> kept_;
  /// Entries that KVM has yet to empty.
  uint64_t given_back_ = 0;
  /// Since the last `take` or `keep`.
  bool overran_ = false;
  std::chrono::nanoseconds lost_{0};
};

}  // namespace kvmsnap
