#include "memory/page_map.h"

#include <algorithm>
#include <utility>

namespace kvmsnap {

PageMap::PageMap(std::span<const GpaRange> regions, std::span<const GpaRange> content) {
  for (const GpaRange& region : regions) {
    uint64_t pages = region.size / kPageSize;
    slots_.push_back({region, std::vector<bool>(pages), std::vector<bool>(pages)});
  }
  std::sort(slots_.begin(), slots_.end(),
            [](const Slot& a, const Slot& b) { return a.range.gpa < b.range.gpa; });
  for (const GpaRange& range : content) {
    Slot* slot = find(range.gpa);
    if (slot == nullptr || range.end() > slot->range.end()) continue;
    auto first =
        slot->absent.begin() + static_cast<ptrdiff_t>((range.gpa - slot->range.gpa) / kPageSize);
    std::fill_n(first, range.size / kPageSize, true);
    left_ += range.size / kPageSize;
  }
}

const PageMap::Slot* PageMap::find(uint64_t gpa) const {
  auto after =
      std::upper_bound(slots_.begin(), slots_.end(), gpa,
                       [](uint64_t value, const Slot& slot) { return value < slot.range.gpa; });
  if (after == slots_.begin()) return nullptr;
  const Slot& slot = *std::prev(after);
  return gpa < slot.range.end() ? &slot : nullptr;
}

PageMap::State PageMap::state(uint64_t gpa) const {
  const Slot* slot = find(gpa);
  if (slot == nullptr) return State::Here;
  uint64_t page = (gpa - slot->range.gpa) / kPageSize;
  if (slot->asked[page]) return State::Asked;
  return slot->absent[page] ? State::Absent : State::Here;
}

uint64_t PageMap::first_missing(uint64_t gpa, uint64_t end) const {
  if (left_ == 0) return end;
  for (const Slot& slot : slots_) {
    uint64_t base = slot.range.gpa;
    if (end <= base || gpa >= slot.range.end()) continue;
    uint64_t first = (std::max(gpa, base) - base) / kPageSize;
    uint64_t stop = (std::min(end, slot.range.end()) - base + kPageSize - 1) / kPageSize;
    for (uint64_t page = first; page < stop; page++) {
      if (slot.absent[page] || slot.asked[page]) return base + page * kPageSize;
    }
  }
  return end;
}

GpaRange PageMap::claim(Slot& slot, uint64_t first, uint64_t end) {
  for (uint64_t page = first; page < end; page++) {
    slot.absent[page] = false;
    slot.asked[page] = true;
  }
  return {slot.range.gpa + first * kPageSize, (end - first) * kPageSize};
}

GpaRange PageMap::claim_around(uint64_t gpa, uint64_t block) {
  Slot& slot = *find(gpa);
  uint64_t base = slot.range.gpa;
  uint64_t page = (gpa - base) / kPageSize;
  uint64_t lowest = (std::max(gpa / block * block, base) - base) / kPageSize;
  uint64_t highest = (std::min(gpa / block * block + block, slot.range.end()) - base) / kPageSize;
  uint64_t first = page, end = page + 1;
  while (first > lowest && slot.absent[first - 1]) first--;
  while (end < highest && slot.absent[end]) end++;
  return claim(slot, first, end);
}

GpaRange PageMap::claim_first(const GpaRange& within, uint64_t most) {
  for (Slot& slot : slots_) {
    uint64_t base = slot.range.gpa;
    if (within.end() <= base || within.gpa >= slot.range.end()) continue;
    auto at = [&](uint64_t page) { return slot.absent.begin() + static_cast<ptrdiff_t>(page); };
    uint64_t start = (std::max(within.gpa, base) - base) / kPageSize;
    uint64_t stop = (std::min(within.end(), slot.range.end()) - base + kPageSize - 1) / kPageSize;
    auto found = std::find(at(start), at(stop), true);
    if (found == at(stop)) continue;
    uint64_t first = static_cast<uint64_t>(found - slot.absent.begin());
    uint64_t limit = std::min(stop, first + std::max(most, kPageSize) / kPageSize);
    auto end = std::find(found, at(limit), false);
    return claim(slot, first, static_cast<uint64_t>(end - slot.absent.begin()));
  }
  return {};
}

GpaRange PageMap::rest_of_gap(uint64_t gpa, uint64_t block) const {
  const Slot* slot = find(gpa);
  if (slot == nullptr) return {};
  uint64_t limit = std::min(gpa / block * block + block, slot->range.end());
  uint64_t end = gpa + kPageSize;
  while (end < limit && state(end) == State::Here) end += kPageSize;
  return {gpa, end - gpa};
}

void PageMap::arrived(const GpaRange& range) {
  Slot& slot = *find(range.gpa);
  uint64_t first = (range.gpa - slot.range.gpa) / kPageSize;
  for (uint64_t page = first; page < first + range.size / kPageSize; page++) {
    if (slot.asked[page]) left_--;
    slot.asked[page] = false;
  }
}

void append_range(std::vector<GpaRange>& runs, const GpaRange& range) {
  if (!runs.empty() && runs.back().end() == range.gpa) {
    runs.back().size += range.size;
  } else {
    runs.push_back(range);
  }
}

}  // namespace kvmsnap
