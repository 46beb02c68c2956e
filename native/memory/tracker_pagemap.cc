#include "memory/tracker_pagemap.h"

#include "memory/page_scan.h"

namespace kvmsnap {

PagemapTracker::PagemapTracker(GuestMemory& memory)
    : memory_(memory), userfault_(WriteFault::Async) {
  watch_all();
}

void PagemapTracker::watch_all() {
  for (const RegionSpec& spec : memory_.regions()) {
    const uint8_t* host = memory_.host(spec.slot);
    userfault_.watch(host, spec.size);
    userfault_.protect(reinterpret_cast<uintptr_t>(host), spec.size, true);
  }
}

void PagemapTracker::harvest(std::vector<DirtySlot>& slots) {
  for (DirtySlot& slot : slots) {
    const uint8_t* host = memory_.host(slot.slot);
    uint64_t base = reinterpret_cast<uintptr_t>(host);
    for (const HostRun& run : take_written_pages(host, slot.pages * kPageSize)) {
      slot.mark((run.start - base) / kPageSize, (run.end - run.start) / kPageSize);
    }
  }
}

void PagemapTracker::stop() {
  for (const RegionSpec& spec : memory_.regions()) {
    userfault_.forget(memory_.host(spec.slot), spec.size);
  }
}

}  // namespace kvmsnap
