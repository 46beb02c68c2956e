// Writes an image's content to files, with checksums, on threads of its own beside a running guest.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "kvm/fd.h"
#include "memory/chunk_checks.h"
#include "memory/digest.h"
#include "memory/image.h"
#include "memory/image_layout.h"

namespace kvmsnap {

/// Bytes that one CRC-32C covers.
constexpr uint64_t kChunk = 1 << 20;

struct WrittenPart {
  Sha256 sha256;
  uint64_t size = 0;
  /// Of each kChunk bytes in turn; the last may be short.
  std::vector<uint32_t> crc32c;
};

/// Cancellation and progress of a long piece of work, shared between threads.
struct WorkControl {
  std::atomic<bool> cancelled = false;
  std::atomic<uint64_t> done_bytes = 0;
  /// Called on a working thread after each chunk. Must not throw.
  std::function<void()> on_progress;

  void advance(uint64_t bytes) {
    done_bytes.fetch_add(bytes, std::memory_order_relaxed);
    if (on_progress) on_progress();
  }
};

class ImageWriter {
 public:
  /// `files` are empty, writable, and as many as the layout has parts.
  /// `whole`: what the layout leaves out is to be zeros, as in a full snapshot.
  ImageWriter(std::shared_ptr<const Image> image, ImageLayout layout, std::vector<UniqueFd> files,
              DigestFactory make_digest, bool whole = true);

  const ImageLayout& layout() const { return layout_; }
  uint64_t total_bytes() const;

  /// Blocks until all parts are written: two at a time on each processor, since two digests take
  /// little longer than one. Pages of zeros become holes. `durable` waits for the disk (fdatasync).
  /// What comes from a snapshot's files is compared with their checksums: see ChunkChecks.
  /// Throws ERR_ABORTED when cancelled, ERR_SNAPSHOT_CORRUPT, ERR_SYSTEM with the errno when a file
  /// cannot be written.
  std::vector<WrittenPart> run(bool durable, WorkControl& control);

 private:
  class Part;
  /// Writes parts from `next` on until there are no more.
  void work(std::atomic<size_t>& next, std::vector<WrittenPart>& written, bool durable,
            ChunkChecks& checks, WorkControl& control) const;

  std::shared_ptr<const Image> image_;
  ImageLayout layout_;
  std::vector<UniqueFd> files_;
  DigestFactory make_digest_;
  bool whole_;
};

/// Digests a file the way ImageWriter does what it writes.
WrittenPart digest_file(int fd, uint64_t chunk, DigestFactory make_digest, WorkControl& control);

}  // namespace kvmsnap
