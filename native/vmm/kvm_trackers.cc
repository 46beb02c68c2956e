#include "vmm/kvm_trackers.h"

#include <algorithm>

#include "kvm/error.h"

namespace kvmsnap {

namespace {

// 64 MiB: KVM holds its lock, which a vCPU's page faults need, for one chunk at a time.
constexpr uint64_t kChunkPages = 16384;

}  // namespace

LoggedSlots::LoggedSlots(MemorySlots& slots, const GuestMemory& memory) : slots_(slots) {
  std::vector<RegionSpec> regions = memory.regions();
  for (const RegionSpec& spec : regions) {
    if ((spec.flags & kFlags) == 0) continue;
    throw Error("ERR_STATE", "slot " + std::to_string(spec.slot) +
                                 " logs dirty pages already: switch that off, or track with "
                                 "`pagemap`");
  }
  before_.reserve(regions.size());
  try {
    for (const RegionSpec& spec : regions) {
      slots_.set_flags(spec.slot, spec.flags | kFlags);
      before_.push_back(spec);
    }
  } catch (...) {
    restore();
    throw;
  }
}

void LoggedSlots::renew() {
  for (const RegionSpec& spec : before_) {
    slots_.set_flags(spec.slot, spec.flags);
    slots_.set_flags(spec.slot, spec.flags | kFlags);
  }
}

void LoggedSlots::restore() {
  for (const RegionSpec& spec : before_) slots_.set_flags(spec.slot, spec.flags);
  before_.clear();
}

BitmapTracker::BitmapTracker(MemorySlots& slots, const GuestMemory& memory, Protect protect)
    : slots_(slots), was_manual_(slots.manual()) {
  bool manual = protect == Protect::Manual;
  // KVM looks at it whenever a log is read, so that it may change while no log is on.
  if (manual != was_manual_) slots_.set_manual(manual);
  try {
    logged_.emplace(slots, memory);
  } catch (...) {
    if (manual != was_manual_) slots_.set_manual(was_manual_);
    throw;
  }
}

void BitmapTracker::harvest(std::vector<DirtySlot>& slots) {
  for (DirtySlot& slot : slots) {
    std::vector<uint64_t> bitmap = slots_.read_log(slot.slot);
    for (size_t word = 0; word < bitmap.size(); word++) slot.bitmap[word] |= bitmap[word];
    if (slots_.manual()) clear(slot, std::move(bitmap));
  }
}

void BitmapTracker::clear(DirtySlot& slot, std::vector<uint64_t> bitmap) {
  for (uint64_t first = 0; first < slot.pages; first += kChunkPages) {
    uint64_t pages = std::min(kChunkPages, slot.pages - first);
    std::span<uint64_t> chunk = std::span(bitmap).subspan(first / 64, (pages + 63) / 64);
    bool clean = std::all_of(chunk.begin(), chunk.end(), [](uint64_t word) { return word == 0; });
    if (!clean) slots_.clear_log(slot.slot, first, static_cast<uint32_t>(pages), chunk);
  }
}

void BitmapTracker::stop() {
  logged_->restore();
  if (slots_.manual() != was_manual_) slots_.set_manual(was_manual_);
}

RingTracker::RingTracker(DirtyRings& rings, MemorySlots& slots, GuestMemory& memory)
    : rings_(rings), memory_(memory), logged_(slots, memory) {
  rings_.keep(clean_slots(memory));
}

void RingTracker::harvest(std::vector<DirtySlot>& slots) {
  // After an overrun pages are written that KVM does not watch: it does so for all of a slot when
  // its log is switched on.
  if (!rings_.take(slots)) logged_.renew();
  for (DirtySlot& slot : slots) memory_.take_host_writes(slot.slot, slot.bitmap);
}

void RingTracker::stop() {
  logged_.restore();
  rings_.keep({});
}

}  // namespace kvmsnap
