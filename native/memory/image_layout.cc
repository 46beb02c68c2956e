#include "memory/image_layout.h"

#include <algorithm>
#include <cstring>

#include "kvm/error.h"
#include "kvm/mapping.h"
#include "memory/chunk_checks.h"
#include "memory/page_bytes.h"
#include "memory/region_spec.h"

namespace kvmsnap {

namespace {

// Bytes looked at between two checks for a cancellation.
constexpr uint64_t kStep = 1 << 20;
// A file is mapped to look at it, which pays for pieces of this size.
constexpr uint64_t kLeastLook = 64 << 10;

// Sorts the pages of changed ranges into what is stored and what is zero.
class Sorter {
 public:
  Sorter(const Image& image, const std::atomic<bool>& cancelled)
      : image_(image), cancelled_(cancelled), buffer_(Mapping::buffer(kStep)) {}

  void add(const GpaRange& range) {
    start_ = range.gpa;
    for (uint64_t at = range.gpa; at < range.end();) {
      if (cancelled_.load(std::memory_order_relaxed)) {
        throw Error("ERR_ABORTED", "the work was cancelled");
      }
      uint64_t data = image_.next_data(at, range.end()).value_or(range.end());
      data = data / kPageSize * kPageSize;
      if (data > at) append(content_.zeros, at, data);
      at = std::max(at, data);
      std::span<const uint8_t> bytes = look(at, std::min(kStep, range.end() - at));
      for (size_t page = 0; page < bytes.size(); page += kPageSize) {
        auto& list = page_is_zero(bytes.data() + page) ? content_.zeros : content_.stored;
        append(list, at + page, at + page + kPageSize);
      }
      at += bytes.size();
    }
  }

  Content take() { return std::move(content_); }

 private:
  std::span<const uint8_t> look(uint64_t gpa, uint64_t length) {
    if (length >= kLeastLook) {
      std::span<const uint8_t> seen = image_.look(gpa, length, view_);
      if (seen.size() >= kLeastLook) return seen;
    }
    std::span<uint8_t> bytes(buffer_.get(), length);
    image_.read(gpa, bytes);
    return bytes;
  }

  // Joins neighbours of one range: two ranges may be in two regions.
  void append(std::vector<GpaRange>& list, uint64_t gpa, uint64_t end) const {
    if (!list.empty() && list.back().end() == gpa && gpa > start_) {
      list.back().size += end - gpa;
    } else {
      list.push_back({gpa, end - gpa});
    }
  }

  const Image& image_;
  const std::atomic<bool>& cancelled_;
  Mapping buffer_;
  std::shared_ptr<const Mapping> view_;
  uint64_t start_ = 0;
  Content content_;
};

}  // namespace

uint64_t Content::stored_bytes() const {
  uint64_t bytes = 0;
  for (const GpaRange& range : stored) bytes += range.size;
  return bytes;
}

// The granules with content, merged and whole again: an extent may begin and end inside one. A
// region that begins or ends inside one has a short granule there.
Content whole_content(const Image& image) {
  Content content;
  std::vector<GpaRange>& ranges = content.stored;
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
  return content;
}

Content changed_content(const Image& image,
                        std::span<const std::shared_ptr<const Provenance>> since,
                        const std::atomic<bool>& cancelled) {
  Sorter sorter(image, cancelled);
  for (const GpaRange& range : changed_since(image, since)) sorter.add(range);
  Content content = sorter.take();
  // What is stored is compared when it is read to be written; zeros are not read again.
  ChunkChecks checks(image);
  for (const GpaRange& range : content.zeros) checks.require(range.gpa, range.size);
  return content;
}

ImageLayout lay_out(const Content& content, uint64_t part_size) {
  uint64_t limit = std::max(part_size / kGranule * kGranule, kGranule);
  ImageLayout layout;
  for (GpaRange range : content.stored) {
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

}  // namespace kvmsnap
