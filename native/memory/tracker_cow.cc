#include "memory/tracker_cow.h"

#include "memory/page_scan.h"

namespace kvmsnap {

CowTracker::CowTracker(GuestMemory& memory) : memory_(memory) {
  memory_.freeze();
  // What was written before is the image's now.
  std::vector<DirtySlot> before = clean_slots(memory_);
  join_host_writes(memory_, before);
}

void CowTracker::scan(std::vector<DirtySlot>& slots) const {
  for (DirtySlot& slot : slots) {
    const uint8_t* host = memory_.host(slot.slot);
    uint64_t base = reinterpret_cast<uintptr_t>(host);
    for (const HostRun& run : scan_private_pages(host, slot.pages * kPageSize)) {
      slot.mark((run.start - base) / kPageSize, (run.end - run.start) / kPageSize);
    }
  }
}

void CowTracker::harvest(std::vector<DirtySlot>& slots) {
  scan(slots);
  memory_.freeze();
  // A write by the VMM may have come between the two. It is wholly before or after the freeze,
  // which takes the memory's lock, and has its bit by now.
  join_host_writes(memory_, slots);
}

}  // namespace kvmsnap
