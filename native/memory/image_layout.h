// How an image lies in files: which guest memory goes where, before any byte is written.
#pragma once

#include <cstdint>
#include <vector>

#include "memory/image.h"

namespace kvmsnap {

struct ImageLayout {
  /// Bytes of each part.
  std::vector<uint64_t> part_sizes;
  /// `file` is the number of the part. Ordered by part, then by offset.
  std::vector<Extent> extents;
};

/// Packs every granule that may have content into parts of at most `part_size` bytes (rounded down
/// to a granule, at least one).
ImageLayout lay_out(const Image& image, uint64_t part_size);

/// Bytes that a layout stores.
uint64_t content_bytes(const Image& image);

}  // namespace kvmsnap
