// What of an image is stored, and how it lies in files: before any byte is written.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "memory/image.h"
#include "memory/provenance.h"

namespace kvmsnap {

/// What a snapshot stores of an image: ranges of whole pages inside one region each, ordered by
/// gpa.
struct Content {
  std::vector<GpaRange> stored;
  /// Pages that became zero. Not in `stored`; none in a full snapshot, where all that is not stored
  /// is zero.
  std::vector<GpaRange> zeros;

  uint64_t stored_bytes() const;
};

/// Every granule that may have content.
Content whole_content(const Image& image);

/// The pages that differ from the marks': see changed_since, which says what it throws. Reads them,
/// to find those that are zeros. Throws ERR_ABORTED once `cancelled`.
///
/// Runs are not merged over pages that did not change: a page costs 3 µs to hash and write and
/// 4 KiB for good, an extent 32 bytes and 1 to 2 µs at a restore, and those are few where an image
/// has very many (see Image::place).
Content changed_content(const Image& image,
                        std::span<const std::shared_ptr<const Provenance>> since,
                        const std::atomic<bool>& cancelled);

struct ImageLayout {
  /// Bytes of each part.
  std::vector<uint64_t> part_sizes;
  /// `file` is the number of the part. Ordered by part, then by offset.
  std::vector<Extent> extents;
};

/// Packs what is stored into parts of at most `part_size` bytes (rounded down to a granule, at
/// least one).
ImageLayout lay_out(const Content& content, uint64_t part_size);

}  // namespace kvmsnap
