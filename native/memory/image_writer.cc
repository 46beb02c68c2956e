#include "memory/image_writer.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <mutex>
#include <thread>

#include "kvm/error.h"
#include "memory/crc32c.h"
#include "memory/file_io.h"
#include "memory/region_spec.h"

namespace kvmsnap {

namespace {

void check_cancelled(const WorkControl& control) {
  if (control.cancelled.load(std::memory_order_relaxed)) {
    throw Error("ERR_ABORTED", "the work was cancelled");
  }
}

bool all_zero(const uint8_t* page) {
  // A page whose first byte equals all that follow it, and is zero.
  return page[0] == 0 && std::memcmp(page, page + 1, kPageSize - 1) == 0;
}

// Writes the pages that are not zero, in runs as long as they come.
void write_content(int fd, std::span<const uint8_t> chunk, uint64_t offset) {
  for (size_t at = 0; at < chunk.size();) {
    if (all_zero(chunk.data() + at)) {
      at += kPageSize;
      continue;
    }
    size_t start = at;
    while (at < chunk.size() && !all_zero(chunk.data() + at)) at += kPageSize;
    write_all(fd, chunk.data() + start, at - start, offset + start);
  }
}

}  // namespace

ImageWriter::ImageWriter(std::shared_ptr<const Image> image, ImageLayout layout,
                         std::vector<UniqueFd> files, DigestFactory make_digest)
    : image_(std::move(image)),
      layout_(std::move(layout)),
      files_(std::move(files)),
      make_digest_(make_digest) {
  if (files_.size() != layout_.part_sizes.size()) {
    throw Error("ERR_INVALID_ARGUMENT", "the image needs " +
                                            std::to_string(layout_.part_sizes.size()) +
                                            " files, not " + std::to_string(files_.size()));
  }
}

uint64_t ImageWriter::total_bytes() const {
  uint64_t total = 0;
  for (uint64_t size : layout_.part_sizes) total += size;
  return total;
}

std::vector<WrittenPart> ImageWriter::run(bool durable, WorkControl& control) {
  std::vector<WrittenPart> written(files_.size());
  std::atomic<size_t> next = 0;
  std::mutex mutex;
  std::exception_ptr failure;
  auto work = [&] {
    for (size_t part; (part = next.fetch_add(1)) < files_.size();) {
      try {
        written[part] = write_part(part, durable, control);
      } catch (...) {
        std::lock_guard lock(mutex);
        if (!failure) failure = std::current_exception();
        // The others stop at their next chunk; their ERR_ABORTED is not the first failure.
        control.cancelled = true;
        return;
      }
    }
  };
  size_t workers =
      std::min<size_t>(std::max(1u, std::thread::hardware_concurrency()), files_.size());
  std::vector<std::jthread> helpers;
  for (size_t i = 1; i < workers; i++) helpers.emplace_back(work);
  work();
  helpers.clear();
  if (failure) std::rethrow_exception(failure);
  return written;
}

WrittenPart ImageWriter::write_part(size_t part, bool durable, WorkControl& control) {
  int fd = files_[part].get();
  WrittenPart written;
  written.size = layout_.part_sizes[part];
  if (::ftruncate(fd, static_cast<off_t>(written.size)) < 0) throw_system("ftruncate");
  std::unique_ptr<Digest> digest = make_digest_();
  std::vector<uint8_t> buffer(std::min(kChunk, written.size));

  auto extent = std::find_if(layout_.extents.begin(), layout_.extents.end(),
                             [&](const Extent& e) { return e.file == part; });
  for (uint64_t offset = 0; offset < written.size;) {
    check_cancelled(control);
    std::span<uint8_t> chunk(buffer.data(), std::min(kChunk, written.size - offset));
    for (size_t filled = 0; filled < chunk.size();) {
      uint64_t inside = offset + filled - extent->offset;
      size_t length = std::min<uint64_t>(chunk.size() - filled, extent->length - inside);
      image_->read(extent->gpa + inside, chunk.subspan(filled, length));
      filled += length;
      if (inside + length == extent->length) ++extent;
    }
    written.crc32c.push_back(crc32c(chunk));
    digest->update(chunk);
    write_content(fd, chunk, offset);
    offset += chunk.size();
    control.advance(chunk.size());
  }
  if (durable && ::fdatasync(fd) < 0) throw_system("fdatasync");
  written.sha256 = digest->finish();
  return written;
}

WrittenPart digest_file(int fd, uint64_t chunk_size, DigestFactory make_digest,
                        WorkControl& control) {
  WrittenPart result;
  std::unique_ptr<Digest> digest = make_digest();
  std::vector<uint8_t> buffer(chunk_size);
  for (;;) {
    check_cancelled(control);
    size_t filled = 0;
    while (filled < buffer.size()) {
      ssize_t count = ::pread(fd, buffer.data() + filled, buffer.size() - filled,
                              static_cast<off_t>(result.size + filled));
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) throw_system("pread");
      if (count == 0) break;
      filled += static_cast<size_t>(count);
    }
    if (filled == 0) break;
    std::span<const uint8_t> chunk(buffer.data(), filled);
    result.crc32c.push_back(crc32c(chunk));
    digest->update(chunk);
    result.size += filled;
    control.advance(filled);
    if (filled < buffer.size()) break;
  }
  result.sha256 = digest->finish();
  return result;
}

}  // namespace kvmsnap
