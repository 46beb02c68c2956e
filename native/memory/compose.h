// An image of many small extents, as one of few.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <vector>

#include "memory/image.h"

namespace kvmsnap {

/// Extents that every machine of an image is mapped with as it is. Each is one or two mappings of
/// the process's 65530 (vm.max_map_count), at 2 to 5 µs.
constexpr size_t kMostExtents = 2048;
/// The same for one machine alone, a quarter of what a process may have. To copy takes two or three
/// times as long as to map once, and pays from the second machine on.
constexpr size_t kMostExtentsOnce = 16384;

/// The same bytes with the granules of many small extents copied into a file of their own, where
/// they lie as in guest memory; null when `image` has at most `most` extents, or when it would cost
/// more than it saves. 1 to 5 µs for each page copied. Throws ERR_SNAPSHOT_CORRUPT when a file was
/// cut short.
/// Throws ERR_ABORTED once `cancelled`.
std::shared_ptr<const Image> composed(const Image& image, size_t most = kMostExtents,
                                      const std::atomic<bool>& cancelled = kNeverCancelled);

/// The granules of so many small extents that to copy them whole costs less than to map them, in
/// order, neighbours joined.
std::vector<GpaRange> scattered_granules(const Image& image);

}  // namespace kvmsnap
