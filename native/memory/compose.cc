#include "memory/compose.h"

#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <span>
#include <thread>
#include <vector>

#include "kvm/error.h"
#include "kvm/mapping.h"
#include "memory/quiet_thread.h"
#include "memory/region_spec.h"

namespace kvmsnap {

namespace {

// A granule of so many extents stays as it is.
constexpr size_t kFewExtents = 8;
// To map an extent takes as long as to copy 2 pages (3.4 and 1.5 µs of processor time), at every
// restore instead of once: a granule with more pages than this for each extent is mapped, while
// kMostExtentsOnce allows it.
constexpr size_t kMostPagesAnExtent = 4;
// What is asked for at a time where an extent may have holes, which must stay holes in the copy.
constexpr uint64_t kStep = 64 << 10;
// IOV_MAX of Linux.
constexpr size_t kMostPieces = 1024;

// Writes to one file wait for each other, and most of a copy is having the page.
constexpr unsigned kMostThreads = 4;
constexpr uint64_t kLeastPiece = 4 << 20;

using Extents = std::span<const Extent>;

// A granule, cut at the borders of its region, and the extents that begin in it.
struct Granule {
  GpaRange range;
  size_t extents = 0;
  uint64_t content = 0;
  bool first_of_region = false;
};

std::vector<Granule> granules_of(const Image& image) {
  std::vector<Granule> granules;
  Extents extents = image.extents();
  for (const GpaRange& region : image.regions()) {
    bool first = true;
    while (!extents.empty() && extents[0].gpa < region.end()) {
      uint64_t start = std::max(extents[0].gpa / kGranule * kGranule, region.gpa);
      uint64_t end = std::min((start / kGranule + 1) * kGranule, region.end());
      Granule granule = {.range = {start, end - start}, .first_of_region = first};
      first = false;
      while (!extents.empty() && extents[0].gpa < end) {
        granule.extents++;
        granule.content += std::min(extents[0].end(), end) - extents[0].gpa;
        extents = extents.subspan(1);
      }
      granules.push_back(granule);
    }
  }
  return granules;
}

// Granules to copy; neighbours joined.
std::vector<GpaRange> chosen(const std::vector<Granule>& granules, uint64_t most_pages) {
  std::vector<GpaRange> ranges;
  for (const Granule& granule : granules) {
    if (granule.extents <= kFewExtents) continue;
    if (granule.content / kPageSize / granule.extents > most_pages) continue;
    bool joins =
        !ranges.empty() && ranges.back().end() == granule.range.gpa && !granule.first_of_region;
    if (joins) {
      ranges.back().size += granule.range.size;
    } else {
      ranges.push_back(granule.range);
    }
  }
  return ranges;
}

// What one thread copies: a file, and what is to lie in it.
struct Piece {
  std::shared_ptr<BackingFile> file;
  std::vector<Extent> extents;
  uint64_t size = 0;
};

// Bytes on their way from mapped files to one place after the other in a new one. A page of theirs
// that cannot be read makes the system call fail, where a copy would be a SIGBUS.
class Gather {
 public:
  explicit Gather(const BackingFile& target) : target_(target) {}

  void add(uint64_t to, const uint8_t* from, uint64_t length) {
    if (to != end_ || pieces_.size() == kMostPieces) flush();
    if (pieces_.empty()) start_ = to;
    pieces_.push_back({const_cast<uint8_t*>(from), length});
    end_ = to + length;
  }

  void flush() {
    std::span<iovec> left = pieces_;
    while (start_ < end_) {
      ssize_t count = ::pwritev(target_.fd(), left.data(), static_cast<int>(left.size()),
                                static_cast<off_t>(start_));
      if (count < 0 && errno == EINTR) continue;
      if (count < 0 && errno == EFAULT) {
        throw Error("ERR_SNAPSHOT_CORRUPT",
                    "a memory file of the snapshot was cut short while it was in use");
      }
      if (count < 0) throw_system("pwritev");
      start_ += static_cast<uint64_t>(count);
      left = after(left, static_cast<size_t>(count));
    }
    pieces_.clear();
  }

 private:
  static std::span<iovec> after(std::span<iovec> pieces, size_t done) {
    while (!pieces.empty() && done >= pieces[0].iov_len) {
      done -= pieces[0].iov_len;
      pieces = pieces.subspan(1);
    }
    if (done > 0) {
      pieces[0].iov_base = static_cast<uint8_t*>(pieces[0].iov_base) + done;
      pieces[0].iov_len -= done;
    }
    return pieces;
  }

  const BackingFile& target_;
  uint64_t start_ = 0;
  uint64_t end_ = 0;
  std::vector<iovec> pieces_;
};

class Copier {
 public:
  explicit Copier(const Image& image) : image_(image) {
    for (const Extent& extent : image.extents()) {
      if (extent.file >= views_.size()) views_.resize(extent.file + 1);
      Mapping& view = views_[extent.file];
      if (view.get() != nullptr) continue;
      const BackingFile& file = image.file(extent);
      view = Mapping(file.size(), PROT_READ, MAP_SHARED | MAP_NORESERVE, file.fd());
    }
  }

  // Thread-safe. Writes to one file wait for each other.
  void run(const Piece& piece) const {
    Gather gather(*piece.file);
    for (const Extent& part : piece.extents) copy(part, gather);
    gather.flush();
  }

 private:
  void copy(const Extent& part, Gather& gather) const {
    const std::vector<Extent>& extents = image_.extents();
    auto extent = std::upper_bound(
        extents.begin(), extents.end(), part.gpa,
        [](uint64_t gpa, const Extent& candidate) { return gpa < candidate.end(); });
    for (; extent != extents.end() && extent->gpa < part.end(); ++extent) {
      uint64_t start = std::max(extent->gpa, part.gpa);
      uint64_t end = std::min(extent->end(), part.end());
      add(gather, *extent, start, end - start, part.offset + (start - part.gpa));
    }
  }

  void add(Gather& gather, const Extent& extent, uint64_t gpa, uint64_t length, uint64_t to) const {
    const uint8_t* view = views_[extent.file].get();
    uint64_t offset = extent.offset + (gpa - extent.gpa);
    if (length <= kStep) return gather.add(to, view + offset, length);
    uint64_t end = offset + length;
    for (uint64_t at = offset; auto data = image_.file(extent).next_data(at, end);) {
      uint64_t start = std::max(*data / kPageSize * kPageSize, at);
      at = std::min(start + kStep, end);
      gather.add(to + (start - offset), view + start, at - start);
    }
  }

  const Image& image_;
  std::vector<Mapping> views_;
};

// `ranges` side by side in a few files of about the same size.
std::vector<Piece> pieces_of(const std::vector<GpaRange>& ranges) {
  uint64_t total = 0;
  for (const GpaRange& range : ranges) total += range.size;
  uint64_t most = std::clamp(std::thread::hardware_concurrency(), 1U, kMostThreads);
  uint64_t count = std::clamp<uint64_t>(total / kLeastPiece, 1, most);
  uint64_t share = (total / count / kGranule + 1) * kGranule;
  std::vector<Piece> pieces(1);
  for (GpaRange rest : ranges) {
    while (rest.size > 0) {
      if (pieces.back().size >= share) pieces.emplace_back();
      Piece& piece = pieces.back();
      uint64_t here = std::min(rest.size, share - piece.size);
      piece.extents.push_back({.file = 0, .gpa = rest.gpa, .length = here, .offset = piece.size});
      piece.size += here;
      rest = {rest.gpa + here, rest.size - here};
    }
  }
  for (Piece& piece : pieces) {
    piece.file = BackingFile::create_memfd("kvmsnap-composed", piece.size);
  }
  return pieces;
}

// One on this thread, the others on their own; all are through when it returns or throws.
void copy_all(const Image& image, const std::vector<Piece>& pieces) {
  Copier copier(image);
  std::vector<std::optional<Error>> failures(pieces.size());
  auto copy = [&](size_t index) {
    try {
      copier.run(pieces[index]);
    } catch (const Error& error) {
      failures[index] = error;
    }
  };
  std::vector<std::thread> helpers;
  size_t here = 0;
  try {
    for (; here + 1 < pieces.size(); here++) {
      helpers.push_back(quiet_thread("copying memory", [&, here] { copy(here); }));
    }
  } catch (const Error&) {
    // No thread to be had: the rest is done here.
  }
  for (; here < pieces.size(); here++) copy(here);
  for (std::thread& helper : helpers) helper.join();
  for (const auto& failure : failures) {
    if (failure) throw Error(*failure);
  }
}

}  // namespace

std::shared_ptr<const Image> composed(const Image& image, size_t most) {
  if (image.extents().size() <= most) return nullptr;
  std::vector<Granule> granules = granules_of(image);
  std::vector<GpaRange> ranges = chosen(granules, kMostPagesAnExtent);
  size_t left = 0;
  for (const Granule& granule : granules) {
    bool stays = granule.content / kPageSize / granule.extents > kMostPagesAnExtent;
    if (stays) left += granule.extents;
  }
  if (left > kMostExtentsOnce) ranges = chosen(granules, UINT64_MAX);
  if (ranges.empty()) return nullptr;

  std::vector<Piece> pieces = pieces_of(ranges);
  copy_all(image, pieces);
  std::vector<std::shared_ptr<const BackingFile>> files;
  std::vector<Extent> whole;
  for (Piece& piece : pieces) {
    piece.file->seal();
    for (Extent extent : piece.extents) {
      extent.file = static_cast<uint32_t>(files.size());
      whole.push_back(extent);
    }
    files.push_back(std::move(piece.file));
  }
  return image.overlaid(files, std::move(whole));
}

}  // namespace kvmsnap
