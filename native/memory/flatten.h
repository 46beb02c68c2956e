// An image of many layers, as one of few.
#pragma once

#include <atomic>
#include <memory>

#include "memory/image.h"

namespace kvmsnap {

/// The same bytes with small layers copied into one file, and what is scattered over a granule with
/// them; null when there is nothing to gain. Provenance is that of the originals. Takes the time of
/// the copies, on this thread. Throws ERR_SYSTEM, ERR_SNAPSHOT_CORRUPT, ERR_ABORTED once
/// `cancelled`.
std::shared_ptr<const Image> flattened(const Image& image, const std::atomic<bool>& cancelled);

/// `now` with what it has from the very places of `before` as `after` has it, which has the bytes
/// of `before`. All have the same regions.
std::shared_ptr<const Image> rebased(const Image& now, const Image& before, const Image& after);

}  // namespace kvmsnap
