// Dirty tracking by the mapping: pages of a frozen machine that are no longer the image's. It costs
// the guest one copy for each page and harvest; each harvest copies the dirty pages once more, into
// the next layer.
#pragma once

#include "memory/tracker.h"

namespace kvmsnap {

class CowTracker final : public Tracker {
 public:
  /// Freezes the memory. It stays copy-on-write when tracking ends, which a guest cannot tell.
  explicit CowTracker(GuestMemory& memory);

  void harvest(std::vector<DirtySlot>& slots) override;
  void stop() override {}
  void before_remap(std::vector<DirtySlot>& slots) override { scan(slots); }
  void after_remap() override {}

 private:
  void scan(std::vector<DirtySlot>& slots) const;

  GuestMemory& memory_;
};

}  // namespace kvmsnap
