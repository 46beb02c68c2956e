// Compares what a save takes from a snapshot's files with the checksums of those files, so that
// damage never gets a good digest.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "memory/image.h"

namespace kvmsnap {

/// Of one save. Thread-safe.
class ChunkChecks {
 public:
  /// `image` is what is saved, and outlives this.
  explicit ChunkChecks(const Image& image);

  /// Whether there is anything to compare with.
  bool any() const { return !files_.empty(); }

  /// Compares the chunks that the bytes of [gpa, gpa + size) lie in, each once a save; and those
  /// that lay there before pages were written, each once while its file is open: a page that was
  /// copied on write has the damage of the page that it is a copy of. Throws ERR_SNAPSHOT_CORRUPT,
  /// which names the blob and where in it.
  void require(uint64_t gpa, uint64_t size);
  /// The same for all of the image. Throws ERR_ABORTED once `cancelled`.
  void require_all(const std::atomic<bool>& cancelled);

  /// The one whole chunk of a file that the bytes of [gpa, gpa + size) are, if they are: who reads
  /// it anyway compares it himself, and calls `passed` or `refuse`.
  struct Whole {
    const BackingFile* file = nullptr;
    uint64_t chunk = 0;
    uint32_t crc32c = 0;
  };
  Whole whole_chunk(uint64_t gpa, uint64_t size) const;
  void passed(const Whole& chunk);
  [[noreturn]] static void refuse(const BackingFile& file, uint64_t chunk);

 private:
  using Flags = std::vector<std::atomic<bool>>;

  void require_direct(uint64_t gpa, uint64_t size);
  void require_beneath(uint64_t gpa, uint64_t size) const;

  const Image& image_;
  /// What this save has compared of each file that `image_` has bytes of.
  std::map<const BackingFile*, Flags> files_;
};

}  // namespace kvmsnap
