// Which pages of guest memory were written: one interface, six ways to find out.
#pragma once

#include <chrono>
#include <cstdint>
#include <vector>

#include "memory/guest_memory.h"

namespace kvmsnap {

/// Pages of one memory slot.
struct DirtySlot {
  uint32_t slot = 0;
  uint64_t gpa = 0;
  /// Size of the slot in pages.
  uint64_t pages = 0;
  /// Bit n % 64 of word n / 64 is page n of the slot.
  std::vector<uint64_t> bitmap;

  void mark(uint64_t page) { bitmap[page / 64] |= uint64_t{1} << page % 64; }
  void mark(uint64_t first, uint64_t count) {
    for (uint64_t page = first; page < first + count; page++) mark(page);
  }
  uint64_t count() const;
};

/// A clean slot for each region of `memory`, by gpa.
std::vector<DirtySlot> clean_slots(const GuestMemory& memory);

/// ORs `from` into `into`; both are of the same memory.
void join(std::vector<DirtySlot>& into, const std::vector<DirtySlot>& from);

/// ORs what the VMM itself wrote, which it forgets unless the slot has a dirty log that needs it.
void join_host_writes(GuestMemory& memory, std::vector<DirtySlot>& slots);

/// Tracks from its construction on, which throws when it cannot, and says what to use instead.
/// Used while no vCPU runs; slots neither come nor go meanwhile.
class Tracker {
 public:
  virtual ~Tracker() = default;

  /// ORs the pages written since the last call, and watches them again. On an exception pages may
  /// be forgotten: tracking is to be ended.
  virtual void harvest(std::vector<DirtySlot>& slots) = 0;
  /// Restores what was. Without it the machine is about to be freed.
  virtual void stop() = 0;

  /// Guest memory is about to be mapped anew, with the same content: what is known by the mapping
  /// goes into `slots`.
  virtual void before_remap(std::vector<DirtySlot>& slots) = 0;
  virtual void after_remap() = 0;

  /// Flags that it has set in all slots (KVM_MEM_*).
  virtual uint32_t flags_set() const { return 0; }

  /// Guest time that went into tracking since the last call, as far as it is known, apart from
  /// harvests.
  virtual std::chrono::nanoseconds take_lost() { return {}; }
};

}  // namespace kvmsnap
