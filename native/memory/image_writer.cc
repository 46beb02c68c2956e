#include "memory/image_writer.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <mutex>
#include <thread>

#include "kvm/error.h"
#include "kvm/mapping.h"
#include "memory/crc32c.h"
#include "memory/file_io.h"
#include "memory/page_bytes.h"
#include "memory/region_spec.h"

namespace kvmsnap {

namespace {

// What is read, summed and written at a time: two of it, one for each part in hand, stay in the
// core's L2 cache between the three. Divides kChunk.
constexpr uint64_t kStep = 256 << 10;

void check_cancelled(const WorkControl& control) {
  if (control.cancelled.load(std::memory_order_relaxed)) {
    throw Error("ERR_ABORTED", "the work was cancelled");
  }
}

// Writes the pages that are not zero, in runs as long as they come.
void write_content(int fd, std::span<const uint8_t> chunk, uint64_t offset) {
  for (size_t at = 0; at < chunk.size();) {
    if (page_is_zero(chunk.data() + at)) {
      at += kPageSize;
      continue;
    }
    size_t start = at;
    while (at < chunk.size() && !page_is_zero(chunk.data() + at)) at += kPageSize;
    write_all(fd, chunk.data() + start, at - start, offset + start);
  }
}

}  // namespace

// One part being written, a step at a time.
class ImageWriter::Part {
 public:
  Part(const ImageWriter& writer, size_t number, ChunkChecks& checks)
      : writer_(writer),
        checks_(checks),
        number_(number),
        fd_(writer.files_[number].get()),
        size_(writer.layout_.part_sizes[number]),
        extent_(std::find_if(writer.layout_.extents.begin(), writer.layout_.extents.end(),
                             [&](const Extent& extent) { return extent.file == number; })),
        digest_(writer.make_digest_()),
        buffer_(Mapping::buffer(std::max<uint64_t>(1, std::min(kStep, size_)))) {
    if (::ftruncate(fd_, static_cast<off_t>(size_)) < 0) throw_system("ftruncate");
  }

  size_t number() const { return number_; }
  bool done() const { return offset_ == size_; }
  Digest& digest() { return *digest_; }
  std::span<const uint8_t> step() const { return step_; }

  // Reads the next step, or looks at it where it is.
  void read() {
    uint64_t length = std::min(kStep, size_ - offset_);
    uint64_t gpa = extent_->gpa + (offset_ - extent_->offset);
    step_ = {};
    // A view of another file is a mapping each time: not for a part of what is needed.
    if (offset_ % kChunk == 0) source_ = whole_source(gpa);
    if (source_.file == nullptr) check_source(length);
    if (extent_->end() - gpa >= length) step_ = writer_.image_->look(gpa, length, view_);
    if (step_.size() < length) copy(length);
    while (extent_->file == number_ && extent_->offset + extent_->length <= offset_ + length) {
      if (++extent_ == writer_.layout_.extents.end()) break;
    }
    if (offset_ % kChunk == 0) written_.crc32c.push_back(0);
    written_.crc32c.back() = crc32c(step_, written_.crc32c.back());
    if (source_.file != nullptr && is_last_of_chunk(length)) compare_source();
  }

  // Writes the step that was read.
  void write(WorkControl& control) {
    write_content(fd_, step_, offset_);
    offset_ += step_.size();
    control.advance(step_.size());
  }

  WrittenPart finish(bool durable) {
    if (durable && ::fdatasync(fd_) < 0) throw_system("fdatasync");
    written_.size = size_;
    written_.sha256 = digest_->finish();
    return std::move(written_);
  }

 private:
  bool is_last_of_chunk(uint64_t length) const {
    return (offset_ + length) % kChunk == 0 || offset_ + length == size_;
  }

  // A chunk of ours that is one of a snapshot's file has its checksum too: computed once for both.
  ChunkChecks::Whole whole_source(uint64_t gpa) const {
    uint64_t length = std::min(kChunk, size_ - offset_);
    if (extent_->end() - gpa < length) return {};
    return checks_.whole_chunk(gpa, length);
  }

  void compare_source() {
    if (written_.crc32c.back() != source_.crc32c) {
      ChunkChecks::refuse(*source_.file, source_.chunk);
    }
    checks_.passed(source_);
  }

  void check_source(uint64_t length) {
    if (!checks_.any()) return;
    for_each_piece(length,
                   [&](uint64_t gpa, size_t, uint64_t size) { checks_.require(gpa, size); });
  }

  // The pieces of guest memory that the next `length` bytes are, and where among those each is.
  template <typename Use>
  void for_each_piece(uint64_t length, const Use& use) const {
    auto extent = extent_;
    for (size_t filled = 0; filled < length; ++extent) {
      uint64_t inside = offset_ + filled - extent->offset;
      size_t piece = std::min<uint64_t>(length - filled, extent->length - inside);
      use(extent->gpa + inside, filled, piece);
      filled += piece;
    }
  }

  void copy(uint64_t length) {
    std::span<uint8_t> bytes(buffer_.get(), length);
    for_each_piece(length, [&](uint64_t gpa, size_t filled, uint64_t size) {
      writer_.image_->read(gpa, bytes.subspan(filled, size));
    });
    step_ = bytes;
  }

  const ImageWriter& writer_;
  ChunkChecks& checks_;
  /// What of a snapshot's files the chunk in hand is, whole; nothing for any other chunk.
  ChunkChecks::Whole source_;
  size_t number_;
  int fd_;
  uint64_t size_;
  uint64_t offset_ = 0;
  std::vector<Extent>::const_iterator extent_;
  std::unique_ptr<Digest> digest_;
  Mapping buffer_;
  std::span<const uint8_t> step_;
  std::shared_ptr<const Mapping> view_;
  WrittenPart written_;
};

ImageWriter::ImageWriter(std::shared_ptr<const Image> image, ImageLayout layout,
                         std::vector<UniqueFd> files, DigestFactory make_digest, bool whole)
    : image_(std::move(image)),
      layout_(std::move(layout)),
      files_(std::move(files)),
      make_digest_(make_digest),
      whole_(whole) {
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
  ChunkChecks checks(*image_);
  std::mutex mutex;
  std::exception_ptr failure;
  auto work_or_fail = [&] {
    try {
      work(next, written, durable, checks, control);
    } catch (...) {
      std::lock_guard lock(mutex);
      if (!failure) failure = std::current_exception();
      // The others stop at their next step; their ERR_ABORTED is not the first failure.
      control.cancelled = true;
    }
  };
  size_t workers =
      std::min<size_t>(std::max(1u, std::thread::hardware_concurrency()), files_.size());
  std::vector<std::jthread> helpers;
  try {
    for (size_t i = 1; i < workers; i++) helpers.emplace_back(work_or_fail);
  } catch (const std::exception&) {
    // No thread to be had: those that are there do all of it.
  }
  work_or_fail();
  helpers.clear();
  if (failure) std::rethrow_exception(failure);
  // What is not stored for being zeros must be zeros in the snapshot that it comes from.
  if (whole_) checks.require_all(control.cancelled);
  return written;
}

void ImageWriter::work(std::atomic<size_t>& next, std::vector<WrittenPart>& written, bool durable,
                       ChunkChecks& checks, WorkControl& control) const {
  std::vector<std::unique_ptr<Part>> parts;
  for (;;) {
    while (parts.size() < 2) {
      size_t number = next.fetch_add(1);
      if (number >= files_.size()) break;
      parts.push_back(std::make_unique<Part>(*this, number, checks));
    }
    if (parts.empty()) return;
    check_cancelled(control);
    for (auto& part : parts) part->read();
    if (parts.size() == 2) {
      parts[0]->digest().update_two(parts[0]->step(), parts[1]->digest(), parts[1]->step());
    } else {
      parts[0]->digest().update(parts[0]->step());
    }
    for (auto& part : parts) part->write(control);
    for (auto& part : parts) {
      if (part->done()) written[part->number()] = part->finish(durable);
    }
    std::erase_if(parts, [](const auto& part) { return part->done(); });
  }
}

WrittenPart digest_file(int fd, uint64_t chunk_size, DigestFactory make_digest,
                        WorkControl& control) {
  WrittenPart result;
  std::unique_ptr<Digest> digest = make_digest();
  Mapping buffer = Mapping::buffer(std::min(chunk_size, kChunk));
  for (uint64_t in_chunk = 0;;) {
    check_cancelled(control);
    size_t filled = 0;
    size_t wanted = std::min<uint64_t>(buffer.size(), chunk_size - in_chunk);
    while (filled < wanted) {
      ssize_t count = ::pread(fd, buffer.get() + filled, wanted - filled,
                              static_cast<off_t>(result.size + filled));
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) throw_system("pread");
      if (count == 0) break;
      filled += static_cast<size_t>(count);
    }
    if (filled == 0) break;
    std::span<const uint8_t> chunk(buffer.get(), filled);
    if (in_chunk == 0) result.crc32c.push_back(0);
    result.crc32c.back() = crc32c(chunk, result.crc32c.back());
    in_chunk = (in_chunk + filled) % chunk_size;
    digest->update(chunk);
    result.size += filled;
    control.advance(filled);
    if (filled < wanted) break;
  }
  result.sha256 = digest->finish();
  return result;
}

}  // namespace kvmsnap
