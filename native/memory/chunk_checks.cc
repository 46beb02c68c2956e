#include "memory/chunk_checks.h"

#include <unistd.h>

#include <algorithm>

#include "kvm/error.h"
#include "kvm/mapping.h"
#include "memory/crc32c.h"
#include "memory/region_spec.h"

namespace kvmsnap {

namespace {

// Chunks may be large: they are read in steps that stay in a core's cache.
constexpr uint64_t kStep = 256 << 10;
// Of memory, between two looks for a cancellation.
constexpr uint64_t kStride = 64 << 20;

uint32_t crc_of_chunk(const BackingFile& file, uint64_t chunk) {
  thread_local Mapping buffer = Mapping::buffer(kStep);
  uint64_t at = chunk * file.sums()->chunk;
  uint64_t end = std::min(at + file.sums()->chunk, file.size());
  uint32_t crc = 0;
  while (at < end) {
    uint64_t length = std::min(kStep, end - at);
    ssize_t count = ::pread(file.fd(), buffer.get(), length, static_cast<off_t>(at));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw_system("pread");
    if (count == 0) file.require_whole();
    if (count == 0) ChunkChecks::refuse(file, chunk);
    crc = crc32c({buffer.get(), static_cast<size_t>(count)}, crc);
    at += static_cast<uint64_t>(count);
  }
  return crc;
}

void check(const BackingFile& file, uint64_t chunk) {
  if (crc_of_chunk(file, chunk) != file.sums()->crc32c[chunk]) ChunkChecks::refuse(file, chunk);
  file.note_good(chunk);
}

// Each chunk of a checked file that [gpa, gpa + size) of `image` lies in.
template <typename Use>
void for_each_chunk(const Image& image, uint64_t gpa, uint64_t size, const Use& use) {
  const auto& extents = image.extents();
  auto extent = std::upper_bound(
      extents.begin(), extents.end(), gpa,
      [](uint64_t value, const Extent& candidate) { return value < candidate.end(); });
  for (; extent != extents.end() && extent->gpa < gpa + size; ++extent) {
    const BackingFile& file = image.file(*extent);
    if (file.sums() == nullptr) continue;
    uint64_t start = std::max(extent->gpa, gpa) - extent->gpa + extent->offset;
    uint64_t end = std::min(extent->end(), gpa + size) - extent->gpa + extent->offset;
    uint64_t last = (end - 1) / file.sums()->chunk;
    for (uint64_t chunk = start / file.sums()->chunk; chunk <= last; chunk++) use(file, chunk);
  }
}

}  // namespace

ChunkChecks::ChunkChecks(const Image& image) : image_(image) {
  auto add = [&](const Image& of) {
    for (const auto& file : of.files()) {
      if (file->sums() != nullptr) files_.try_emplace(file.get(), file->sums()->crc32c.size());
    }
  };
  add(image_);
  for (const auto& source : image_.sources()) add(*source);
}

void ChunkChecks::require(uint64_t gpa, uint64_t size) {
  if (!any()) return;
  require_direct(gpa, size);
  require_beneath(gpa, size);
}

void ChunkChecks::require_direct(uint64_t gpa, uint64_t size) {
  for_each_chunk(image_, gpa, size, [&](const BackingFile& file, uint64_t chunk) {
    std::atomic<bool>& compared = files_.at(&file)[chunk];
    if (compared.load(std::memory_order_relaxed)) return;
    check(file, chunk);
    compared.store(true, std::memory_order_relaxed);
  });
}

void ChunkChecks::require_beneath(uint64_t gpa, uint64_t size) const {
  for (const auto& source : image_.sources()) {
    for_each_chunk(*source, gpa, size, [](const BackingFile& file, uint64_t chunk) {
      if (!file.known_good(chunk)) check(file, chunk);
    });
  }
}

void ChunkChecks::require_all(const std::atomic<bool>& cancelled) {
  if (!any()) return;
  for (const GpaRange& region : image_.regions()) {
    for (uint64_t gpa = region.gpa; gpa < region.end(); gpa += kStride) {
      if (cancelled.load(std::memory_order_relaxed)) {
        throw Error("ERR_ABORTED", "the work was cancelled");
      }
      require(gpa, std::min(kStride, region.end() - gpa));
    }
  }
}

ChunkChecks::Whole ChunkChecks::whole_chunk(uint64_t gpa, uint64_t size) const {
  if (!any()) return {};
  const auto& extents = image_.extents();
  auto extent = std::upper_bound(
      extents.begin(), extents.end(), gpa,
      [](uint64_t value, const Extent& candidate) { return value < candidate.end(); });
  if (extent == extents.end() || extent->gpa > gpa || extent->end() < gpa + size) return {};
  const BackingFile& file = image_.file(*extent);
  if (file.sums() == nullptr) return {};
  uint64_t offset = extent->offset + (gpa - extent->gpa);
  uint64_t chunk = offset / file.sums()->chunk;
  uint64_t start = chunk * file.sums()->chunk;
  if (offset != start || size != std::min(file.sums()->chunk, file.size() - start)) return {};
  return {.file = &file, .chunk = chunk, .crc32c = file.sums()->crc32c[chunk]};
}

void ChunkChecks::passed(const Whole& chunk) {
  files_.at(chunk.file)[chunk.chunk].store(true, std::memory_order_relaxed);
  chunk.file->note_good(chunk.chunk);
}

void ChunkChecks::refuse(const BackingFile& file, uint64_t chunk) {
  uint64_t start = chunk * file.sums()->chunk;
  uint64_t end = std::min(start + file.sums()->chunk, file.size());
  throw Error("ERR_SNAPSHOT_CORRUPT",
              "memory part " + file.name() + ", offset " + std::to_string(start) +
                  ": the bytes from there to " + std::to_string(end) +
                  " do not have their checksum. Nothing was saved: copy the blob again from where "
                  "it came from, and restore the machine anew");
}

}  // namespace kvmsnap
