// Parts of an image, copied side by side into files of their own.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "memory/image.h"

namespace kvmsnap {

/// `image` with the bytes of `ranges` in at most `most_files` new memfds, each filled by a thread:
/// writes to one file wait for each other, and most of a copy is having the page. `ranges` are in
/// order, apart, and each inside one region. 1 to 5 µs for each page. Throws ERR_SNAPSHOT_CORRUPT
/// when a file was cut short, ERR_SYSTEM, ERR_ABORTED once `cancelled`.
std::shared_ptr<const Image> copied(const Image& image, const std::vector<GpaRange>& ranges,
                                    unsigned most_files, const std::atomic<bool>& cancelled);

}  // namespace kvmsnap
