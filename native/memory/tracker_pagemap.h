// Dirty tracking by PAGEMAP_SCAN with asynchronous write protection (Linux 6.7): no thread, no
// message, and it sees writes by anybody.
#pragma once

#include "memory/tracker.h"
#include "memory/userfault.h"

namespace kvmsnap {

class PagemapTracker final : public Tracker {
 public:
  explicit PagemapTracker(GuestMemory& memory);

  void harvest(std::vector<DirtySlot>& slots) override;
  void stop() override;
  void before_remap(std::vector<DirtySlot>& slots) override { harvest(slots); }
  void after_remap() override { watch_all(); }

 private:
  void watch_all();

  GuestMemory& memory_;
  Userfault userfault_;
};

}  // namespace kvmsnap
