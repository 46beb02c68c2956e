// Images of many pieces, copied together: the same bytes, in fewer pieces.
#include "memory/compose.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>

#include "memory/provenance.h"
#include "test/catch.h"
#include "test/memory/bytes.h"

namespace kvmsnap {

namespace {

using Bytes = std::vector<uint8_t>;

// Neither begins nor ends at a granule, and they touch.
const std::vector<GpaRange> kRegions = {{0x3000, 5 * kGranule}, {0x3000 + 5 * kGranule, kGranule}};
constexpr uint64_t kBase = 0x3000;
constexpr uint64_t kSize = 6 * kGranule;
constexpr uint64_t kPages = kSize / kPageSize;

struct Sample {
  Bytes bytes = Bytes(kSize);
  std::shared_ptr<const Image> image;

  // Some pages of a file in each granule that `scattered` says, over one with a little content.
  Sample(Random& random, int layers, auto scattered) {
    auto file = BackingFile::create_memfd("kvmsnap-test", kSize);
    Bytes content = random_pages(random, 30);
    write_all(file->fd(), content.data(), content.size(), kGranule);
    std::copy(content.begin(), content.end(), bytes.begin() + kGranule);
    image = std::make_shared<const Image>(
        kRegions, std::vector<std::shared_ptr<const BackingFile>>{std::move(file)},
        std::vector<Extent>{{0, kBase, kRegions[0].size, 0},
                            {0, kRegions[1].gpa, kGranule - kPageSize, kRegions[0].size}});
    for (int layer = 0; layer < layers; layer++) overlay(random, scattered);
  }

  void overlay(Random& random, auto scattered) {
    Bytes content = random_pages(random, kPages);
    std::vector<Extent> extents;
    uint64_t offset = 0;
    for (uint64_t page = below(random, 9); page < kPages; page += 1 + below(random, 20)) {
      if (!scattered((kBase + page * kPageSize) / kGranule)) continue;
      extents.push_back({0, kBase + page * kPageSize, kPageSize, offset});
      std::copy_n(content.begin() + static_cast<ptrdiff_t>(offset), kPageSize,
                  bytes.begin() + static_cast<ptrdiff_t>(page * kPageSize));
      offset += kPageSize;
    }
    image = image->overlaid(file_of(content), std::move(extents));
  }
};

Bytes mapped(const Image& image) {
  Mapping range(kSize, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
  image.map(kBase, kSize, range.get());
  return {range.get(), range.get() + kSize};
}

}  // namespace

TEST_CASE("compose: the same bytes, one extent for granules in a row") {
  for (uint64_t seed = 1; seed <= 6; seed++) {
    INFO("seed " << seed);
    Random random(seed);
    Sample sample(random, 1 + static_cast<int>(seed), [](uint64_t) { return true; });
    auto fewer = composed(*sample.image, 0);
    REQUIRE(fewer != nullptr);
    REQUIRE(sample.image->extents().size() > 200);
    // One for each region, and what lies in its last, short granule.
    REQUIRE(fewer->extents().size() <= 12);
    REQUIRE(mapped(*fewer) == sample.bytes);
    Bytes read(kSize);
    std::span<uint8_t> all = read;
    fewer->read(kBase, all.first(kRegions[0].size));
    fewer->read(kRegions[1].gpa, all.subspan(kRegions[0].size));
    REQUIRE(read == sample.bytes);
    CHECK(fewer->lineage() == sample.image->lineage());
  }
}

TEST_CASE("compose: granules of few extents stay where they are") {
  Random random(11);
  Sample sample(random, 3, [](uint64_t granule) { return granule == 2; });
  auto fewer = composed(*sample.image, 0);
  REQUIRE(fewer != nullptr);
  CHECK(fewer->extents().size() <= 6);
  CHECK(mapped(*fewer) == sample.bytes);
  Provenance before(*sample.image);
  for (const GpaRange& range : before.changed_in(*fewer)) {
    CHECK(range.gpa >= 2 * kGranule);
    CHECK(range.end() <= 3 * kGranule);
  }
  CHECK(composed(*sample.image) == nullptr);
  Sample whole(random, 0, [](uint64_t) { return false; });
  CHECK(composed(*whole.image, 0) == nullptr);
}

TEST_CASE("compose: holes stay holes") {
  Random random(13);
  Sample sample(random, 2, [](uint64_t granule) { return granule == 1; });
  auto fewer = composed(*sample.image, 0);
  uint64_t bytes = 0;
  for (uint64_t at = kBase; auto data = fewer->next_data(at, kBase + kSize);) {
    bytes += kPageSize;
    at = *data + kPageSize;
  }
  // What was written in two layers and the 30 pages below, each in a step of 64 KiB at most.
  CHECK(bytes < kSize / 4);
}

TEST_CASE("compose: placed memory is that of the image, and its extents are what they were") {
  Random random(17);
  Sample sample(random, 30, [](uint64_t) { return true; });
  size_t extents = sample.image->extents().size();
  REQUIRE(extents > kMostExtents);
  CHECK(sample.image->is_scattered());
  // The first machine may be the only one.
  CHECK_FALSE(sample.image->wants_preparing());
  CHECK(sample.image->wants_preparing());
  for (int round = 0; round < 2; round++) {
    if (round == 1) sample.image->prepare();
    Mapping range(kSize, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
    sample.image->place(kBase, kSize, range.get());
    REQUIRE(Bytes(range.get(), range.get() + kSize) == sample.bytes);
  }
  CHECK(sample.image->extents().size() == extents);
  CHECK_FALSE(sample.image->is_scattered());
  CHECK_FALSE(sample.image->wants_preparing());
}

TEST_CASE("compose: a file that was cut short is an error, whichever thread copies it") {
  Random random(19);
  Sample sample(random, 8, [](uint64_t) { return true; });
  UniqueFd fd(::memfd_create("kvmsnap-test", MFD_CLOEXEC));
  for (uint64_t granule : {0, 1, 4}) {
    for (uint64_t pages : {1, 100}) {
      INFO("granule " << granule << ", " << pages << " pages");
      REQUIRE(::ftruncate(fd.get(), kGranule) == 0);
      auto image = sample.image->overlaid(BackingFile::duplicate(fd.get()),
                                          {{0, kBase + granule * kGranule, pages * kPageSize, 0}});
      REQUIRE(composed(*image, 0) != nullptr);
      REQUIRE(::ftruncate(fd.get(), 0) == 0);
      CHECK(code_of([&] { composed(*image, 0); }) == "ERR_SNAPSHOT_CORRUPT");
    }
  }
}

TEST_CASE("compose: a file that is cut short while it is copied is an error, or was in time") {
  Random random(23);
  Sample sample(random, 8, [](uint64_t) { return true; });
  UniqueFd fd(::memfd_create("kvmsnap-test", MFD_CLOEXEC));
  std::vector<Extent> extents;
  for (uint64_t page = 0; page < kRegions[0].size / kPageSize; page += 2) {
    extents.push_back({0, kBase + page * kPageSize, kPageSize, page * kPageSize});
  }
  int corrupt = 0;
  for (int round = 0; round < 40; round++) {
    REQUIRE(::ftruncate(fd.get(), kSize) == 0);
    auto image = sample.image->overlaid(BackingFile::duplicate(fd.get()), extents);
    std::atomic<bool> begun = false;
    std::thread cutter([&, pause = std::chrono::microseconds(below(random, 4000))] {
      begun = true;
      std::this_thread::sleep_for(pause);
      static_cast<void>(::ftruncate(fd.get(), 0));
    });
    while (!begun) std::this_thread::yield();
    std::string code = code_of([&] { composed(*image, 0); });
    cutter.join();
    REQUIRE((code.empty() || code == "ERR_SNAPSHOT_CORRUPT"));
    if (!code.empty()) corrupt++;
  }
  CHECK(corrupt > 0);
}

}  // namespace kvmsnap
