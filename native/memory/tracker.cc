#include "memory/tracker.h"

#include <bit>

#include "kvm/uapi.h"

namespace kvmsnap {

uint64_t DirtySlot::count() const {
  uint64_t bits = 0;
  for (uint64_t word : bitmap) bits += static_cast<uint64_t>(std::popcount(word));
  return bits;
}

std::vector<DirtySlot> clean_slots(const GuestMemory& memory) {
  std::vector<DirtySlot> slots;
  for (const RegionSpec& spec : memory.regions()) {
    uint64_t pages = spec.size / kPageSize;
    slots.push_back({.slot = spec.slot,
                     .gpa = spec.gpa,
                     .pages = pages,
                     .bitmap = std::vector<uint64_t>((pages + 63) / 64)});
  }
  return slots;
}

void join(std::vector<DirtySlot>& into, const std::vector<DirtySlot>& from) {
  for (size_t i = 0; i < into.size(); i++) {
    for (size_t word = 0; word < into[i].bitmap.size(); word++) {
      into[i].bitmap[word] |= from[i].bitmap[word];
    }
  }
}

void join_host_writes(GuestMemory& memory, std::vector<DirtySlot>& slots) {
  for (DirtySlot& slot : slots) {
    if ((memory.region(slot.slot).flags & KVM_MEM_LOG_DIRTY_PAGES) != 0) {
      memory.join_host_writes(slot.slot, slot.bitmap);
    } else {
      memory.take_host_writes(slot.slot, slot.bitmap);
    }
  }
}

}  // namespace kvmsnap
