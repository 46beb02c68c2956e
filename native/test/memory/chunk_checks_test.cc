// What a save compares with a snapshot's checksums: where bytes come from, and where they came
// from.
#include "memory/chunk_checks.h"

#include <sys/mman.h>
#include <unistd.h>

#include "memory/crc32c.h"
#include "memory/image.h"
#include "test/catch.h"
#include "test/memory/bytes.h"

namespace kvmsnap {

namespace {

constexpr uint64_t kChunkBytes = 4 * kPageSize;
constexpr uint64_t kPages = 16;

// A file of four chunks with their sums, which may be damaged, and memory that is made from it.
struct Checked {
  UniqueFd fd{::memfd_create("kvmsnap-test", MFD_CLOEXEC)};
  std::shared_ptr<const Image> image;

  Checked() {
    Random random(7);
    std::vector<uint8_t> bytes(kPages * kPageSize);
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(1 + below(random, 255));
    write_all(fd.get(), bytes.data(), bytes.size(), 0);
    auto sums = std::make_shared<ChunkSums>();
    sums->chunk = kChunkBytes;
    for (uint64_t at = 0; at < bytes.size(); at += kChunkBytes) {
      sums->crc32c.push_back(crc32c(std::span(bytes).subspan(at, kChunkBytes)));
    }
    std::vector<std::shared_ptr<const BackingFile>> files = {
        BackingFile::duplicate(fd.get(), "sha256:0123456789abcdef", std::move(sums))};
    std::vector<GpaRange> regions = {{0, kPages * kPageSize}};
    std::vector<Extent> extents = {
        {.file = 0, .gpa = 0, .length = kPages * kPageSize, .offset = 0}};
    image = std::make_shared<const Image>(regions, std::move(files), std::move(extents));
  }

  void damage(uint64_t page) const {
    const uint8_t zero = 0;
    write_all(fd.get(), &zero, 1, page * kPageSize);
  }
};

// `image` with `count` pages from `page` on written.
std::shared_ptr<const Image> written(const Image& image, uint64_t page, uint64_t count) {
  auto layer = BackingFile::create_memfd("kvmsnap-test", count * kPageSize);
  std::vector<Extent> extents = {
      {.file = 0, .gpa = page * kPageSize, .length = count * kPageSize, .offset = 0}};
  return image.overlaid(std::move(layer), std::move(extents));
}

std::string code_of_page(const Image& image, uint64_t page) {
  ChunkChecks checks(image);
  return code_of([&] { checks.require(page * kPageSize, kPageSize); });
}

}  // namespace

TEST_CASE("chunk checks: the chunk that a page lies in, and no other") {
  Checked checked;
  CHECK(code_of_page(*checked.image, 5).empty());
  checked.damage(6);
  CHECK(code_of_page(*checked.image, 5) == "ERR_SNAPSHOT_CORRUPT");
  CHECK(code_of_page(*checked.image, 3).empty());
  CHECK(code_of_page(*checked.image, 8).empty());
  ChunkChecks all(*checked.image);
  CHECK(code_of([&] { all.require_all(kNeverCancelled); }) == "ERR_SNAPSHOT_CORRUPT");
}

TEST_CASE("chunk checks: pages that were written have what they were copied from") {
  Checked checked;
  auto whole = written(*checked.image, 4, 4);
  checked.damage(5);
  // No byte of that chunk is in the image any more.
  CHECK(code_of_page(*whole, 5) == "ERR_SNAPSHOT_CORRUPT");
  CHECK(code_of_page(*whole, 9).empty());
  auto again = written(*whole, 0, 2);
  CHECK(code_of_page(*again, 4) == "ERR_SNAPSHOT_CORRUPT");
  CHECK(code_of_page(*again, 1).empty());
  auto part = again->clipped({4 * kPageSize, 4 * kPageSize});
  CHECK(code_of_page(*part, 4) == "ERR_SNAPSHOT_CORRUPT");
}

TEST_CASE("chunk checks: what lay below is compared once while the file is open") {
  Checked checked;
  auto above = written(*checked.image, 4, 4);
  CHECK(code_of_page(*above, 4).empty());
  checked.damage(5);
  CHECK(code_of_page(*above, 4).empty());
  // What is taken from the file itself is compared at each save.
  CHECK(code_of_page(*checked.image, 4) == "ERR_SNAPSHOT_CORRUPT");
}

TEST_CASE("chunk checks: memory that came from elsewhere is nobody's") {
  Checked checked;
  auto part = checked.image->clipped({0, kPages * kPageSize});
  part->forget_sources();
  auto above = written(*part, 0, kPages);
  checked.damage(5);
  CHECK(code_of_page(*above, 5).empty());
}

TEST_CASE("chunk checks: a file that was cut short, and sums that are not of it") {
  Checked checked;
  CHECK(code_of([&] { checked.image->require_whole(); }).empty());
  REQUIRE(::ftruncate(checked.fd.get(), 5 * kPageSize) == 0);
  CHECK(code_of([&] { checked.image->require_whole(); }) == "ERR_SNAPSHOT_CORRUPT");
  CHECK(code_of_page(*checked.image, 5) == "ERR_SNAPSHOT_CORRUPT");
  CHECK(code_of_page(*checked.image, 1).empty());
  auto few = std::make_shared<ChunkSums>();
  few->chunk = kChunkBytes;
  few->crc32c = {1, 2, 3};
  Checked other;
  CHECK(code_of([&] { BackingFile::duplicate(other.fd.get(), {}, few); }) == "ERR_SNAPSHOT_FORMAT");
}

}  // namespace kvmsnap
