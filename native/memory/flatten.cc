#include "memory/flatten.h"

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "memory/compose.h"
#include "memory/copy_ranges.h"

namespace kvmsnap {

namespace {

// A layer stays as it is when it has so many times the bytes of all smaller ones together. So each
// time that a page is copied it goes to a file five times as large, and few files stay.
constexpr uint64_t kMuchLarger = 4;

// Which files are to be copied together: the layers but the largest ones. Snapshots' files are left
// alone: their pages are the page cache's, which can drop them.
std::vector<bool> small_layers(const Image& image) {
  std::vector<uint64_t> bytes(image.files().size());
  for (const Extent& extent : image.extents()) bytes[extent.file] += extent.length;
  std::vector<size_t> layers;
  for (size_t file = 0; file < bytes.size(); file++) {
    if (bytes[file] > 0 && image.files()[file]->is_ours()) layers.push_back(file);
  }
  std::sort(layers.begin(), layers.end(), [&](size_t a, size_t b) { return bytes[a] < bytes[b]; });
  size_t count = 0;
  uint64_t sum = 0;
  for (size_t i = 0; i < layers.size(); i++) {
    if (i == 0 || bytes[layers[i]] <= kMuchLarger * sum) count = i + 1;
    sum += bytes[layers[i]];
  }
  std::vector<bool> small(bytes.size());
  if (count < 2) return small;
  for (size_t i = 0; i < count; i++) small[layers[i]] = true;
  return small;
}

void add_within(const std::vector<GpaRange>& regions, std::vector<GpaRange>& ranges,
                const GpaRange& range) {
  bool begins = std::any_of(regions.begin(), regions.end(),
                            [&](const GpaRange& region) { return region.gpa == range.gpa; });
  if (!begins && !ranges.empty() && ranges.back().end() >= range.gpa) {
    ranges.back().size = std::max(ranges.back().end(), range.end()) - ranges.back().gpa;
  } else {
    ranges.push_back(range);
  }
}

// What to copy: all that small layers have, and whole granules where pieces are many.
std::vector<GpaRange> ranges_to_copy(const Image& image) {
  std::vector<bool> small = small_layers(image);
  std::vector<GpaRange> granules = scattered_granules(image);
  std::vector<GpaRange> ranges;
  auto granule = granules.begin();
  for (const Extent& extent : image.extents()) {
    if (!small[extent.file]) continue;
    for (; granule != granules.end() && granule->gpa <= extent.gpa; ++granule) {
      add_within(image.regions(), ranges, *granule);
    }
    bool inside =
        !ranges.empty() && ranges.back().gpa <= extent.gpa && ranges.back().end() >= extent.end();
    if (!inside) add_within(image.regions(), ranges, {extent.gpa, extent.length});
  }
  for (; granule != granules.end(); ++granule) add_within(image.regions(), ranges, *granule);
  return ranges;
}

// One stretch of an image: of `extent`, or zeros.
struct Stretch {
  const Extent* extent = nullptr;
  uint64_t end = 0;
};

// Walks an image's memory forwards.
class Walk {
 public:
  explicit Walk(const Image& image) : image_(image) {}

  Stretch at(uint64_t gpa, uint64_t end) {
    const auto& extents = image_.extents();
    while (next_ < extents.size() && extents[next_].end() <= gpa) next_++;
    if (next_ == extents.size() || extents[next_].gpa >= end) return {.end = end};
    const Extent& here = extents[next_];
    if (here.gpa > gpa) return {.end = here.gpa};
    return {.extent = &here, .end = std::min(here.end(), end)};
  }

 private:
  const Image& image_;
  size_t next_ = 0;
};

// Extents in order, with their files.
class Builder {
 public:
  // What `extent` of `image` has from `gpa` to `end`.
  void add(const Image& image, const Extent& extent, uint64_t gpa, uint64_t end) {
    const auto& file = image.files()[extent.file];
    auto [number, is_new] = numbers_.try_emplace(file.get(), static_cast<uint32_t>(files_.size()));
    if (is_new) files_.push_back(file);
    Extent part = {.file = number->second,
                   .gpa = gpa,
                   .length = end - gpa,
                   .offset = extent.offset + (gpa - extent.gpa)};
    if (!extents_.empty()) {
      Extent& last = extents_.back();
      bool continues = last.file == part.file && last.end() == part.gpa &&
                       last.offset + last.length == part.offset && part.gpa != region_;
      if (continues) {
        last.length += part.length;
        return;
      }
    }
    extents_.push_back(part);
  }
  // Extents do not reach over borders of regions.
  void begin_region(uint64_t gpa) { region_ = gpa; }

  std::shared_ptr<const Image> build(const Image& like) {
    return like.moved(std::move(files_), std::move(extents_));
  }

 private:
  std::map<const BackingFile*, uint32_t> numbers_;
  std::vector<std::shared_ptr<const BackingFile>> files_;
  std::vector<Extent> extents_;
  uint64_t region_ = 0;
};

}  // namespace

std::shared_ptr<const Image> flattened(const Image& image, const std::atomic<bool>& cancelled) {
  std::vector<GpaRange> ranges = ranges_to_copy(image);
  if (ranges.empty()) return nullptr;
  return copied(image, ranges, 1, cancelled);
}

std::shared_ptr<const Image> rebased(const Image& now, const Image& before, const Image& after) {
  Walk of_now(now), of_before(before), of_after(after);
  Builder builder;
  for (const GpaRange& region : now.regions()) {
    builder.begin_region(region.gpa);
    for (uint64_t gpa = region.gpa; gpa < region.end();) {
      Stretch mine = of_now.at(gpa, region.end());
      Stretch old = of_before.at(gpa, mine.end);
      bool same = mine.extent == nullptr && old.extent == nullptr;
      if (mine.extent != nullptr && old.extent != nullptr) {
        same = now.files()[mine.extent->file] == before.files()[old.extent->file] &&
               mine.extent->offset - mine.extent->gpa == old.extent->offset - old.extent->gpa;
      }
      uint64_t end = old.end;
      if (!same && mine.extent != nullptr) builder.add(now, *mine.extent, gpa, end);
      for (uint64_t at = gpa; same && at < end;) {
        Stretch fresh = of_after.at(at, end);
        if (fresh.extent != nullptr) builder.add(after, *fresh.extent, at, fresh.end);
        at = fresh.end;
      }
      gpa = end;
    }
  }
  return builder.build(now);
}

}  // namespace kvmsnap
