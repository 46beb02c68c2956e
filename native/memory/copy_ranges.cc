#include "memory/copy_ranges.h"

#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <span>
#include <thread>
#include <utility>

#include "kvm/error.h"
#include "kvm/mapping.h"
#include "memory/quiet_thread.h"
#include "memory/region_spec.h"

namespace kvmsnap {

namespace {

// What is asked for at a time where an extent may have holes, which must stay holes in the copy.
constexpr uint64_t kStep = 64 << 10;
// IOV_MAX of Linux.
constexpr size_t kMostPieces = 1024;

// A thread for less than this is not worth it.
constexpr uint64_t kLeastPiece = 4 << 20;

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

// What `image` has in the place of `part`: each extent, and from where to where it is in it.
template <typename Use>
void for_each_extent(const Image& image, const Extent& part, const Use& use) {
  const std::vector<Extent>& extents = image.extents();
  auto extent =
      std::upper_bound(extents.begin(), extents.end(), part.gpa,
                       [](uint64_t gpa, const Extent& candidate) { return gpa < candidate.end(); });
  for (; extent != extents.end() && extent->gpa < part.end(); ++extent) {
    use(*extent, std::max(extent->gpa, part.gpa), std::min(extent->end(), part.end()));
  }
}

class Copier {
 public:
  Copier(const Image& image, const std::atomic<bool>& cancelled)
      : image_(image), cancelled_(cancelled) {
    views_.resize(image.files().size());
    for (const Extent& extent : image.extents()) {
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
    for_each_extent(image_, part, [&](const Extent& extent, uint64_t start, uint64_t end) {
      add(gather, extent, start, end - start, part.offset + (start - part.gpa));
    });
  }

  void add(Gather& gather, const Extent& extent, uint64_t gpa, uint64_t length, uint64_t to) const {
    if (cancelled_) throw Error("ERR_ABORTED", "copying memory was cancelled");
    const uint8_t* view = views_[extent.file].get();
    uint64_t offset = extent.offset + (gpa - extent.gpa);
    uint64_t end = offset + length;
    if (length <= kStep) {
      // A hole stays one: many extents of a sparse file would fill memory with its zeros.
      if (image_.file(extent).next_data(offset, end)) gather.add(to, view + offset, length);
      return;
    }
    for (uint64_t at = offset; auto data = image_.file(extent).next_data(at, end);) {
      uint64_t start = std::max(*data / kPageSize * kPageSize, at);
      at = std::min(start + kStep, end);
      gather.add(to + (start - offset), view + start, at - start);
    }
  }

  const Image& image_;
  const std::atomic<bool>& cancelled_;
  std::vector<Mapping> views_;
};

// `ranges` side by side in a few files of about the same size.
std::vector<Piece> pieces_of(const std::vector<GpaRange>& ranges, unsigned most_files) {
  uint64_t total = 0;
  for (const GpaRange& range : ranges) total += range.size;
  uint64_t most = std::clamp(std::thread::hardware_concurrency(), 1U, most_files);
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
void copy_all(const Copier& copier, const std::vector<Piece>& pieces) {
  std::vector<std::optional<Error>> failures(pieces.size());
  auto copy = [&](size_t index) {
    try {
      copier.run(pieces[index]);
    } catch (...) {
      failures[index] = current_error();
    }
  };
  std::vector<std::thread> helpers;
  helpers.reserve(pieces.size());
  size_t here = 0;
  try {
    for (; here + 1 < pieces.size(); here++) {
      helpers.push_back(quiet_thread("copying memory", [&, here] { copy(here); }));
    }
  } catch (...) {
    // No thread to be had: the rest is done here.
  }
  for (; here < pieces.size(); here++) copy(here);
  for (std::thread& helper : helpers) helper.join();
  for (const auto& failure : failures) {
    if (failure) throw Error(*failure);
  }
}

using Origin = BackingFile::Origin;

// `length` bytes at `to` are those at `offset` of `file`, or of what that is a copy of.
void add_origins_of(const BackingFile& file, uint64_t offset, uint64_t length, uint64_t to,
                    std::vector<Origin>& origins) {
  const std::vector<Origin>& known = file.origins();
  if (known.empty()) {
    origins.push_back({.offset = to, .length = length, .file = file.id(), .file_offset = offset});
    return;
  }
  auto origin =
      std::upper_bound(known.begin(), known.end(), offset,
                       [](uint64_t value, const Origin& other) { return value < other.end(); });
  for (; origin != known.end() && origin->offset < offset + length; ++origin) {
    uint64_t start = std::max(origin->offset, offset);
    uint64_t end = std::min(origin->end(), offset + length);
    uint64_t from = origin->file == 0 ? 0 : origin->file_offset + (start - origin->offset);
    origins.push_back({.offset = to + (start - offset),
                       .length = end - start,
                       .file = origin->file,
                       .file_offset = from});
  }
}

std::vector<Origin> origins_of(const Image& image, const Piece& piece) {
  std::vector<Origin> origins;
  for (const Extent& part : piece.extents) {
    uint64_t done = part.gpa;
    auto zeros_to = [&](uint64_t gpa) {
      if (gpa > done)
        origins.push_back({.offset = part.offset + (done - part.gpa), .length = gpa - done});
    };
    for_each_extent(image, part, [&](const Extent& extent, uint64_t start, uint64_t end) {
      zeros_to(start);
      add_origins_of(image.file(extent), extent.offset + (start - extent.gpa), end - start,
                     part.offset + (start - part.gpa), origins);
      done = end;
    });
    zeros_to(part.end());
  }
  return origins;
}

}  // namespace

std::shared_ptr<const Image> copied(const Image& image, const std::vector<GpaRange>& ranges,
                                    unsigned most_files, const std::atomic<bool>& cancelled) {
  std::vector<Piece> pieces = pieces_of(ranges, most_files);
  copy_all(Copier(image, cancelled), pieces);
  std::vector<std::shared_ptr<const BackingFile>> files;
  std::vector<Extent> whole;
  for (Piece& piece : pieces) {
    piece.file->seal();
    piece.file->set_origins(origins_of(image, piece));
    for (Extent extent : piece.extents) {
      extent.file = static_cast<uint32_t>(files.size());
      whole.push_back(extent);
    }
    files.push_back(std::move(piece.file));
  }
  return image.overlaid(files, std::move(whole));
}

}  // namespace kvmsnap
