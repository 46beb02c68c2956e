#include "memory/image.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <thread>

#include "kvm/error.h"
#include "kvm/mapping.h"
#include "memory/compose.h"
#include "memory/region_spec.h"

namespace kvmsnap {

namespace {

// Extents in a row that may lie over another, which goes on behind them.
constexpr ptrdiff_t kMostOver = 4;

// How long who waits for memory that another prepares takes to see that it was cancelled.
constexpr std::chrono::milliseconds kBetweenLooks(10);

[[noreturn]] void refuse(const std::string& what) { throw Error("ERR_SNAPSHOT_FORMAT", what); }

[[noreturn]] void refuse(const Extent& extent, const char* why) {
  refuse("the memory extent at " + hex(extent.gpa) + " " + why);
}

void check_regions(const std::vector<GpaRange>& regions) {
  for (size_t i = 0; i < regions.size(); i++) {
    check_range(regions[i].gpa, regions[i].size);
    if (i > 0 && regions[i - 1].end() > regions[i].gpa) {
      refuse("memory regions overlap at " + hex(regions[i].gpa));
    }
  }
}

bool inside_a_region(const std::vector<GpaRange>& regions, const Extent& extent) {
  return std::any_of(regions.begin(), regions.end(), [&](const GpaRange& region) {
    return extent.gpa >= region.gpa && extent.end() <= region.end();
  });
}

// Nearly always in order already, which is seen in a fraction of the time.
template <typename Range>
void sort_by_gpa(std::vector<Range>& ranges) {
  auto below = [](const Range& a, const Range& b) { return a.gpa < b.gpa; };
  if (!std::is_sorted(ranges.begin(), ranges.end(), below)) {
    std::sort(ranges.begin(), ranges.end(), below);
  }
}

void sort_unique(std::vector<uint64_t>& ids) {
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
}

void map_fixed(uint8_t* host, uint64_t size, int flags, int fd, uint64_t offset) {
  if (!map_over_visibly(host, size, PROT_READ | PROT_WRITE, flags | MAP_PRIVATE | MAP_NORESERVE, fd,
                        static_cast<off_t>(offset))) {
    throw_system("mmap", errno == ENOMEM ? "raise vm.max_map_count, or flatten the snapshot" : "");
  }
}

}  // namespace

Image::Image(std::vector<GpaRange> regions, std::vector<std::shared_ptr<const BackingFile>> files,
             std::vector<Extent> extents)
    : regions_(std::move(regions)), files_(std::move(files)), extents_(std::move(extents)) {
  sort_by_gpa(regions_);
  sort_by_gpa(extents_);
  check_regions(regions_);
  for (size_t i = 0; i < extents_.size(); i++) {
    const Extent& extent = extents_[i];
    check_range(extent.gpa, extent.length);
    if (extent.file >= files_.size()) refuse(extent, "names a file that is not there");
    uint64_t file_size = files_[extent.file]->size();
    if (!page_aligned(extent.offset) || extent.offset > file_size ||
        extent.length > file_size - extent.offset) {
      refuse(extent, "is not wholly inside its file");
    }
    if (i > 0 && extents_[i - 1].end() > extent.gpa) refuse(extent, "overlaps the one before it");
    if (!inside_a_region(regions_, extent)) refuse(extent, "is outside guest memory");
  }
  for (const auto& file : files_) lineage_.push_back(file->id());
  sort_unique(lineage_);
}

void Image::add_ancestor(uint64_t file) {
  auto at = std::lower_bound(lineage_.begin(), lineage_.end(), file);
  if (at == lineage_.end() || *at != file) lineage_.insert(at, file);
}

std::shared_ptr<const Image> Image::overlaid(std::shared_ptr<const BackingFile> file,
                                             std::vector<Extent> over) const {
  std::vector<std::shared_ptr<const BackingFile>> files;
  files.push_back(std::move(file));
  return overlaid(files, std::move(over));
}

std::shared_ptr<const Image> Image::overlaid(
    std::span<const std::shared_ptr<const BackingFile>> new_files, std::vector<Extent> over) const {
  std::vector<std::shared_ptr<const BackingFile>> files = files_;
  files.insert(files.end(), new_files.begin(), new_files.end());
  sort_by_gpa(over);
  for (Extent& extent : over) extent.file += static_cast<uint32_t>(files_.size());

  std::vector<Extent> result;
  result.reserve(extents_.size() + 2 * over.size());
  size_t next = 0;
  for (Extent below : extents_) {
    // Cut from `below` all that lies under an upper extent.
    auto cut_to = [&](uint64_t gpa) {
      uint64_t cut = std::min(std::max(gpa, below.gpa), below.end()) - below.gpa;
      below.gpa += cut;
      below.offset += cut;
      below.length -= cut;
    };
    while (next < over.size() && over[next].gpa <= below.gpa) result.push_back(over[next++]);
    if (next > 0) cut_to(over[next - 1].end());
    while (next < over.size() && over[next].gpa < below.end()) {
      if (over[next].gpa > below.gpa) {
        Extent left = below;
        left.length = over[next].gpa - below.gpa;
        result.push_back(left);
      }
      cut_to(over[next].end());
      result.push_back(over[next++]);
    }
    if (below.length > 0) result.push_back(below);
  }
  result.insert(result.end(), over.begin() + static_cast<ptrdiff_t>(next), over.end());

  return derived(regions_, std::move(files), std::move(result));
}

std::shared_ptr<const Image> Image::moved(std::vector<std::shared_ptr<const BackingFile>> files,
                                          std::vector<Extent> extents) const {
  return derived(regions_, std::move(files), std::move(extents));
}

std::shared_ptr<Image> Image::derived(std::vector<GpaRange> regions,
                                      std::vector<std::shared_ptr<const BackingFile>> files,
                                      std::vector<Extent> extents) const {
  // A file that is wholly covered would be kept open for nothing.
  std::vector<uint32_t> renumbered(files.size(), UINT32_MAX);
  std::vector<std::shared_ptr<const BackingFile>> used;
  for (Extent& extent : extents) {
    uint32_t& index = renumbered[extent.file];
    if (index == UINT32_MAX) {
      index = static_cast<uint32_t>(used.size());
      used.push_back(files[extent.file]);
    }
    extent.file = index;
  }
  auto image = std::make_shared<Image>(std::move(regions), std::move(used), std::move(extents));
  image->lineage_ = lineage_;
  image->sources_ = sources_;
  image->from_files_ = from_files_;
  bool checked = std::any_of(files_.begin(), files_.end(),
                             [](const auto& file) { return file->sums() != nullptr; });
  if (sources_.empty() && checked && from_files_) {
    if (auto self = weak_from_this().lock()) image->sources_.push_back(std::move(self));
  }
  return image;
}

std::shared_ptr<Image> Image::clipped(const GpaRange& range) const {
  std::vector<Extent> inside;
  for (auto extent = extent_after(range.gpa); extent != extents_.end() && extent->gpa < range.end();
       ++extent) {
    Extent part = *extent;
    uint64_t start = std::max(extent->gpa, range.gpa);
    part.offset += start - extent->gpa;
    part.gpa = start;
    part.length = std::min(extent->end(), range.end()) - start;
    inside.push_back(part);
  }
  return derived({range}, files_, std::move(inside));
}

std::shared_ptr<const Image> Image::joined(std::span<const std::shared_ptr<const Image>> images) {
  std::vector<GpaRange> regions;
  std::vector<std::shared_ptr<const BackingFile>> files;
  std::vector<Extent> extents;
  std::vector<uint64_t> lineage;
  std::vector<std::shared_ptr<const Image>> sources;
  for (const auto& image : images) {
    lineage.insert(lineage.end(), image->lineage_.begin(), image->lineage_.end());
    for (const auto& source : image->sources_) {
      if (std::find(sources.begin(), sources.end(), source) == sources.end()) {
        sources.push_back(source);
      }
    }
    uint32_t first_file = static_cast<uint32_t>(files.size());
    regions.insert(regions.end(), image->regions_.begin(), image->regions_.end());
    files.insert(files.end(), image->files_.begin(), image->files_.end());
    for (Extent extent : image->extents_) {
      extent.file += first_file;
      extents.push_back(extent);
    }
  }
  auto joined = std::make_shared<Image>(std::move(regions), std::move(files), std::move(extents));
  sort_unique(lineage);
  joined->lineage_ = std::move(lineage);
  joined->sources_ = std::move(sources);
  return joined;
}

std::vector<Extent>::const_iterator Image::extent_after(uint64_t gpa) const {
  return std::upper_bound(
      extents_.begin(), extents_.end(), gpa,
      [](uint64_t value, const Extent& extent) { return value < extent.end(); });
}

void Image::read(uint64_t gpa, std::span<uint8_t> bytes) const {
  bool inside = std::any_of(regions_.begin(), regions_.end(), [&](const GpaRange& region) {
    return gpa >= region.gpa && gpa <= region.end() && bytes.size() <= region.end() - gpa;
  });
  if (!inside) {
    throw Error("ERR_GUEST_ADDRESS",
                hex(gpa) + " + " + hex(bytes.size()) + " is not inside one region of the image");
  }
  uint64_t end = gpa + bytes.size();
  uint64_t done = gpa;
  for (auto extent = extent_after(gpa); extent != extents_.end() && extent->gpa < end; ++extent) {
    uint64_t start = std::max(extent->gpa, gpa);
    uint64_t stop = std::min(extent->end(), end);
    std::memset(bytes.data() + (done - gpa), 0, start - done);
    for (uint64_t at = start; at < stop;) {
      ssize_t count = ::pread(files_[extent->file]->fd(), bytes.data() + (at - gpa), stop - at,
                              static_cast<off_t>(extent->offset + (at - extent->gpa)));
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) throw_system("pread");
      if (count == 0) {
        throw Error("ERR_SNAPSHOT_CORRUPT",
                    "a memory file of the snapshot was cut short while it was in use");
      }
      at += static_cast<uint64_t>(count);
    }
    done = stop;
  }
  std::memset(bytes.data() + (done - gpa), 0, end - done);
}

std::span<const uint8_t> Image::look(uint64_t gpa, uint64_t size,
                                     std::shared_ptr<const Mapping>& held) const {
  auto extent = extent_after(gpa);
  if (extent == extents_.end() || extent->gpa > gpa) return {};
  held = files_[extent->file]->view();
  if (held == nullptr) return {};
  return {held->get() + extent->offset + (gpa - extent->gpa), std::min(size, extent->end() - gpa)};
}

void Image::map(uint64_t gpa, uint64_t size, uint8_t* host) const {
  uint64_t end = gpa + size;
  uint64_t done = gpa;
  for (auto extent = extent_after(gpa); extent != extents_.end() && extent->gpa < end; ++extent) {
    uint64_t start = std::max(extent->gpa, gpa);
    uint64_t stop = std::min(extent->end(), end);
    if (start > done) map_fixed(host + (done - gpa), start - done, MAP_ANONYMOUS, -1, 0);
    map_fixed(host + (start - gpa), stop - start, 0, files_[extent->file]->fd(),
              extent->offset + (start - extent->gpa));
    done = stop;
  }
  if (end > done) map_fixed(host + (done - gpa), end - done, MAP_ANONYMOUS, -1, 0);
  // Once for all pieces: a system call for each would double the cost of mapping.
  hide_from_dumps(host, size);
}

void Image::prepare(const std::atomic<bool>& cancelled) const {
  if (is_prepared_) return;
  // Not a timed mutex: GCC 12's ThreadSanitizer does not know pthread_mutex_clocklock.
  std::unique_lock lock(preparing_, std::defer_lock);
  while (!lock.try_lock()) {
    if (cancelled) throw Error("ERR_ABORTED", "preparing memory was cancelled");
    std::this_thread::sleep_for(kBetweenLooks);
  }
  if (is_prepared_) return;
  composed_ = composed(*this, kMostExtents, cancelled);
  is_prepared_ = true;
}

void Image::require_whole() const {
  for (const auto& file : files_) file->require_whole();
}

bool Image::is_scattered() const { return extents_.size() > kMostExtents && !is_prepared_; }

bool Image::wants_preparing() const {
  return is_scattered() && (is_used_.exchange(true) || extents_.size() > kMostExtentsOnce);
}

// Where the file of `extent` goes on in its place after a few others that lie over it, up to the
// end of the last such piece.
uint64_t Image::reach_of(std::vector<Extent>::const_iterator extent) const {
  uint64_t reach = extent->end();
  uint64_t end = reach;
  auto last = extent;
  for (auto next = extent + 1; next != extents_.end() && next->gpa == end; ++next) {
    end = next->end();
    if (next->file == extent->file && next->offset - extent->offset == next->gpa - extent->gpa) {
      reach = end;
      last = next;
    } else if (next - last > kMostOver) {
      break;
    }
  }
  return reach;
}

void Image::place(uint64_t gpa, uint64_t size, uint8_t* host) const {
  if (extents_.size() > kMostExtentsOnce) prepare();
  if (is_prepared_ && composed_ != nullptr) return composed_->place(gpa, size, host);
  // One mapping for all pieces of a file that others cut, and those over it, are fewer than one for
  // each piece.
  uint64_t end = gpa + size;
  uint64_t done = gpa;
  std::vector<Extent>::const_iterator below;
  uint64_t covered = gpa;
  for (auto extent = extent_after(gpa); extent != extents_.end() && extent->gpa < end; ++extent) {
    uint64_t start = std::max(extent->gpa, gpa);
    uint64_t stop = std::min(extent->end(), end);
    if (start > done) map_fixed(host + (done - gpa), start - done, MAP_ANONYMOUS, -1, 0);
    done = stop;
    if (start < covered) {
      bool shows =
          extent->file == below->file && extent->offset - below->offset == extent->gpa - below->gpa;
      if (shows) continue;
    } else {
      below = extent;
      covered = std::min(reach_of(extent), end);
      stop = covered;
    }
    map_fixed(host + (start - gpa), stop - start, 0, files_[extent->file]->fd(),
              extent->offset + (start - extent->gpa));
  }
  if (end > done) map_fixed(host + (done - gpa), end - done, MAP_ANONYMOUS, -1, 0);
  hide_from_dumps(host, size);
}

std::optional<uint64_t> Image::next_data(uint64_t gpa, uint64_t end) const {
  for (auto extent = extent_after(gpa); extent != extents_.end() && extent->gpa < end; ++extent) {
    uint64_t start = std::max(extent->gpa, gpa);
    uint64_t stop = std::min(extent->end(), end);
    auto data = file(*extent).next_data(extent->offset + (start - extent->gpa),
                                        extent->offset + (stop - extent->gpa));
    if (data) return extent->gpa + (*data - extent->offset);
  }
  return std::nullopt;
}

const std::vector<GpaRange>& Image::content() const {
  std::call_once(content_found_, [this] { content_ = find_content(); });
  return content_;
}

std::vector<GpaRange> Image::find_content() const {
  std::vector<GpaRange> granules;
  for (const Extent& extent : extents_) {
    const BackingFile& file = *files_[extent.file];
    uint64_t file_end = extent.offset + extent.length;
    for (uint64_t at = extent.offset; auto data = file.next_data(at, file_end);) {
      uint64_t granule = (extent.gpa + (*data - extent.offset)) / kGranule * kGranule;
      uint64_t start = std::max(granule, extent.gpa);
      uint64_t end = std::min(granule + kGranule, extent.end());
      granules.push_back({start, end - start});
      at = extent.offset + (end - extent.gpa);
    }
  }
  return granules;
}

}  // namespace kvmsnap
