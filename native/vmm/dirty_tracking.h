// The dirty tracker of a machine, if there is one. In jobs only.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "kvm/error.h"
#include "memory/tracker.h"
#include "vmm/dirty_ring.h"
#include "vmm/memory_slots.h"

namespace kvmsnap {

enum class TrackerKind : uint8_t { Bitmap, BitmapManual, Ring, UffdWp, Pagemap, Cow };
/// By the name that users know; empty for any other.
std::optional<TrackerKind> tracker_by_name(std::string_view name);

/// What one harvest gave.
struct DirtyEpoch {
  std::vector<DirtySlot> slots;
  /// What the harvest took.
  std::chrono::nanoseconds harvest{0};
  /// Guest time that went into tracking since the harvest before, as far as it is known.
  std::chrono::nanoseconds lost{0};
};

class DirtyTracking {
 public:
  /// What trackers work on. `rings` is null for a machine without.
  struct Parts {
    GuestMemory& memory;
    MemorySlots& slots;
    DirtyRings* rings;
  };

  /// Throws ERR_STATE when there is a tracker already, or when the machine was not made for this
  /// one; ERR_KVM_CAPABILITY or ERR_SYSTEM when the host has none of the kind.
  void start(TrackerKind kind, const Parts& parts);
  /// Throws ERR_STATE without a tracker.
  DirtyEpoch harvest(const GuestMemory& memory);
  /// Restores what was; nothing without a tracker.
  void stop();
  /// The machine is being freed.
  void drop() { tracker_.reset(); }
  bool active() const { return tracker_ != nullptr; }
  /// Flags of all slots that the tracker has set, and takes away when it stops.
  uint32_t flags_set() const { return tracker_ == nullptr ? 0 : tracker_->flags_set(); }
  /// Throws ERR_STATE while there is a tracker.
  void require_none(const char* call) const;

  /// Does `work`, which maps guest memory anew with the content it has, so that no page is lost.
  template <typename Work>
  void remap(GuestMemory& memory, const Work& work) {
    if (tracker_ == nullptr) return work();
    before_remap();
    try {
      work();
    } catch (...) {
      after_remap(memory);
      throw;
    }
    after_remap(memory);
  }

 private:
  void before_remap();
  void after_remap(GuestMemory& memory);

  std::unique_ptr<Tracker> tracker_;
  /// Found when memory was mapped anew, for the next harvest.
  std::vector<DirtySlot> found_;
  /// Why the tracker can no longer be relied on.
  std::optional<Error> failure_;
};

}  // namespace kvmsnap
