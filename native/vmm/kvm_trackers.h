// Dirty tracking by KVM's own logs. They do not see what the VMM writes, which is joined.
#pragma once

#include <optional>

#include "memory/tracker.h"
#include "vmm/dirty_ring.h"
#include "vmm/memory_slots.h"

namespace kvmsnap {

/// Switches the dirty logs of all slots on. Throws ERR_STATE when one is on already: its log is
/// somebody else's.
class LoggedSlots {
 public:
  static constexpr uint32_t kFlags = KVM_MEM_LOG_DIRTY_PAGES;
  LoggedSlots(MemorySlots& slots, const GuestMemory& memory);
  /// Off and on again: KVM watches all pages from here on.
  void renew();
  void restore();

 private:
  MemorySlots& slots_;
  std::vector<RegionSpec> before_;
};

/// KVM_GET_DIRTY_LOG, which reads a slot's bitmap and protects its pages again; in manual mode
/// KVM_CLEAR_DIRTY_LOG does the latter, in chunks and only where pages are dirty.
class BitmapTracker final : public Tracker {
 public:
  enum class Protect : uint8_t { AtRead, Manual };
  BitmapTracker(MemorySlots& slots, const GuestMemory& memory, Protect protect);

  void harvest(std::vector<DirtySlot>& slots) override;
  void stop() override;
  void before_remap(std::vector<DirtySlot>&) override {}
  void after_remap() override {}
  uint32_t flags_set() const override { return LoggedSlots::kFlags; }

 private:
  void clear(DirtySlot& slot, std::vector<uint64_t> bitmap);

  MemorySlots& slots_;
  bool was_manual_;
  std::optional<LoggedSlots> logged_;
};

class RingTracker final : public Tracker {
 public:
  RingTracker(DirtyRings& rings, MemorySlots& slots, GuestMemory& memory);

  void harvest(std::vector<DirtySlot>& slots) override;
  void stop() override;
  void before_remap(std::vector<DirtySlot>&) override {}
  void after_remap() override {}
  uint32_t flags_set() const override { return LoggedSlots::kFlags; }
  std::chrono::nanoseconds take_lost() override { return rings_.take_lost(); }

 private:
  DirtyRings& rings_;
  GuestMemory& memory_;
  LoggedSlots logged_;
};

}  // namespace kvmsnap
