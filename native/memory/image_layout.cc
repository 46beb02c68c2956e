#include "memory/image_layout.h"

#include <algorithm>

namespace kvmsnap {

namespace {

// The granules with content, merged and whole again: an extent may begin and end inside one. A
// region that begins or ends inside one has a short granule there.
std::vector<GpaRange> content_ranges(const Image& image) {
  std::vector<GpaRange> ranges;
  const auto& regions = image.regions();
  size_t region = 0;
  for (const GpaRange& data : image.content()) {
    while (data.gpa >= regions[region].end()) region++;
    uint64_t start = std::max(data.gpa / kGranule * kGranule, regions[region].gpa);
    uint64_t end =
        std::min((data.end() + kGranule - 1) / kGranule * kGranule, regions[region].end());
    bool merges =
        !ranges.empty() && ranges.back().end() >= start && ranges.back().gpa >= regions[region].gpa;
    if (merges) {
      ranges.back().size = std::max(ranges.back().end(), end) - ranges.back().gpa;
    } else {
      ranges.push_back({start, end - start});
    }
  }
  return ranges;
}

}  // namespace

ImageLayout lay_out(const Image& image, uint64_t part_size) {
  uint64_t limit = std::max(part_size / kGranule * kGranule, kGranule);
  ImageLayout layout;
  for (GpaRange range : content_ranges(image)) {
    while (range.size > 0) {
      if (layout.part_sizes.empty() || layout.part_sizes.back() >= limit) {
        layout.part_sizes.push_back(0);
      }
      uint64_t& used = layout.part_sizes.back();
      uint64_t length = std::min(range.size, limit - used);
      uint32_t part = static_cast<uint32_t>(layout.part_sizes.size() - 1);
      layout.extents.push_back({.file = part, .gpa = range.gpa, .length = length, .offset = used});
      used += length;
      range.gpa += length;
      range.size -= length;
    }
  }
  return layout;
}

uint64_t content_bytes(const Image& image) {
  uint64_t bytes = 0;
  for (const GpaRange& range : content_ranges(image)) bytes += range.size;
  return bytes;
}

}  // namespace kvmsnap
