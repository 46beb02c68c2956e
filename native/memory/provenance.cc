#include "memory/provenance.h"

#include <algorithm>

#include "kvm/error.h"

namespace kvmsnap {

namespace {

// The bytes of a range, by name: `file` 0 is zeros, and has no offsets.
struct Stretch {
  uint64_t file = 0;
  uint64_t offset = 0;
  uint64_t end = 0;

  bool same_bytes(const Stretch& other) const {
    return file == other.file && (file == 0 || offset == other.offset);
  }
};

// What is at `gpa`, in a list that is walked forwards: `next` is moved to the first that ends after
// it.
template <typename List>
Stretch stretch_at(const List& list, size_t& next, uint64_t gpa, uint64_t end) {
  while (next < list.size() && list[next].end() <= gpa) next++;
  if (next == list.size() || list[next].gpa >= end) return {.file = 0, .offset = 0, .end = end};
  const auto& here = list[next];
  if (here.gpa > gpa) return {.file = 0, .offset = 0, .end = here.gpa};
  return {.file = here.file,
          .offset = here.offset + (gpa - here.gpa),
          .end = std::min(end, here.end())};
}

// Both are ordered and of the same regions, so no result reaches over the end of one.
std::vector<GpaRange> in_both(const std::vector<GpaRange>& one,
                              const std::vector<GpaRange>& other) {
  std::vector<GpaRange> both;
  for (size_t i = 0, j = 0; i < one.size() && j < other.size();) {
    uint64_t start = std::max(one[i].gpa, other[j].gpa);
    uint64_t end = std::min(one[i].end(), other[j].end());
    if (start < end) both.push_back({start, end - start});
    if (one[i].end() < other[j].end()) {
      i++;
    } else {
      j++;
    }
  }
  return both;
}

}  // namespace

Provenance::Provenance(const Image& image) : regions_(image.regions()), lineage_(image.lineage()) {
  for (const Extent& extent : image.extents()) {
    const BackingFile& file = image.file(extent);
    const auto& origins = file.origins();
    if (origins.empty()) {
      add({.gpa = extent.gpa, .length = extent.length, .file = file.id(), .offset = extent.offset});
      continue;
    }
    // A copy: the same bytes as before it was made.
    uint64_t end = extent.offset + extent.length;
    auto origin = std::upper_bound(
        origins.begin(), origins.end(), extent.offset,
        [](uint64_t offset, const BackingFile::Origin& other) { return offset < other.end(); });
    for (; origin != origins.end() && origin->offset < end; ++origin) {
      uint64_t start = std::max(origin->offset, extent.offset);
      if (origin->file == 0) continue;
      add({.gpa = extent.gpa + (start - extent.offset),
           .length = std::min(origin->end(), end) - start,
           .file = origin->file,
           .offset = origin->file_offset + (start - origin->offset)});
    }
  }
}

void Provenance::add(const Source& source) {
  bool continues = !sources_.empty() && sources_.back().file == source.file &&
                   sources_.back().end() == source.gpa &&
                   sources_.back().offset + sources_.back().length == source.offset;
  if (continues) {
    sources_.back().length += source.length;
  } else {
    sources_.push_back(source);
  }
}

bool Provenance::related_to(const Image& image) const {
  const std::vector<uint64_t>& other = image.lineage();
  return lineage_.empty() || std::any_of(lineage_.begin(), lineage_.end(), [&](uint64_t file) {
           return std::binary_search(other.begin(), other.end(), file);
         });
}

std::vector<GpaRange> Provenance::changed_in(const Image& image) const {
  if (regions_ != image.regions()) {
    throw Error("ERR_INVALID_ARGUMENT",
                "the parent has other memory regions: take a full snapshot");
  }
  const std::vector<Source> sources = Provenance(image).sources_;
  std::vector<GpaRange> changed;
  size_t before = 0, after = 0;
  for (const GpaRange& region : regions_) {
    bool open = false;
    for (uint64_t gpa = region.gpa; gpa < region.end();) {
      Stretch old = stretch_at(sources_, before, gpa, region.end());
      Stretch now = stretch_at(sources, after, gpa, region.end());
      uint64_t end = std::min(old.end, now.end);
      bool same = old.same_bytes(now);
      if (!same && open) changed.back().size += end - gpa;
      if (!same && !open) changed.push_back({gpa, end - gpa});
      open = !same;
      gpa = end;
    }
  }
  return changed;
}

std::vector<GpaRange> changed_since(const Image& image,
                                    std::span<const std::shared_ptr<const Provenance>> marks) {
  bool related = std::any_of(marks.begin(), marks.end(),
                             [&](const auto& mark) { return mark->related_to(image); });
  if (!related) {
    throw Error("ERR_INVALID_ARGUMENT",
                "the parent's memory is none that this machine was made from: name a snapshot of "
                "this machine, or of one that it comes from, or take a full snapshot");
  }
  std::vector<GpaRange> changed = marks[0]->changed_in(image);
  for (const auto& mark : marks.subspan(1)) changed = in_both(changed, mark->changed_in(image));
  return changed;
}

}  // namespace kvmsnap
