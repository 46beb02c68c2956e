// Images against a plain array of bytes, through random layers, cuts and joins.
#include "memory/image.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "kvm/mapping.h"
#include "test/catch.h"
#include "test/memory/bytes.h"

namespace kvmsnap {

namespace {

constexpr uint64_t kBase = 0x100000;
constexpr uint64_t kPages = 96;
constexpr uint64_t kSize = kPages * kPageSize;

using Bytes = std::vector<uint8_t>;
using Shared = std::shared_ptr<const Image>;

Shared empty_image(uint64_t base = kBase) {
  return std::make_shared<const Image>(std::vector<GpaRange>{{base, kSize}},
                                       std::vector<std::shared_ptr<const BackingFile>>{},
                                       std::vector<Extent>{});
}

// Lays random, disjoint extents of a new file over `image`, and their bytes over `model`.
Shared overlay_at_random(Random& random, const Shared& image, Bytes& model, uint64_t base = kBase) {
  uint64_t file_pages = 1 + below(random, 64);
  Bytes content = random_pages(random, file_pages);
  std::vector<Extent> extents;
  for (uint64_t page = below(random, 8); page < kPages;) {
    uint64_t length = std::min({1 + below(random, 20), kPages - page, file_pages});
    uint64_t from = below(random, file_pages - length + 1);
    extents.push_back({.file = 0,
                       .gpa = base + page * kPageSize,
                       .length = length * kPageSize,
                       .offset = from * kPageSize});
    std::copy_n(content.begin() + static_cast<ptrdiff_t>(from * kPageSize), length * kPageSize,
                model.begin() + static_cast<ptrdiff_t>(page * kPageSize));
    page += length + below(random, 12);
  }
  std::shuffle(extents.begin(), extents.end(), random);
  return image->overlaid(file_of(content), std::move(extents));
}

Bytes read_all(const Image& image, uint64_t base = kBase, uint64_t size = kSize) {
  Bytes bytes(size, 0xEE);
  image.read(base, bytes);
  return bytes;
}

Bytes map_all(const Image& image, uint64_t base = kBase, uint64_t size = kSize) {
  Mapping range(size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
  image.map(base, size, range.get());
  return {range.get(), range.get() + size};
}

void check_content(const Image& image, const Bytes& model) {
  Bytes outside = model;
  for (const GpaRange& range : image.content()) {
    REQUIRE(range.gpa >= kBase);
    REQUIRE(range.end() <= kBase + kSize);
    std::fill_n(outside.begin() + static_cast<ptrdiff_t>(range.gpa - kBase), range.size, 0);
  }
  REQUIRE(std::all_of(outside.begin(), outside.end(), [](uint8_t byte) { return byte == 0; }));
}

}  // namespace

TEST_CASE("image: layers over layers read and map as the bytes that were laid down") {
  for (uint64_t seed = 1; seed <= 12; seed++) {
    INFO("seed " << seed);
    Random random(seed);
    Bytes model(kSize);
    Shared image = empty_image();
    REQUIRE(read_all(*image) == model);
    for (int layer = 0; layer < 6; layer++) {
      Shared below_it = image;
      Bytes before = model;
      image = overlay_at_random(random, image, model);
      REQUIRE(read_all(*image) == model);
      // Immutable: the lower one is what it was.
      REQUIRE(read_all(*below_it) == before);
    }
    REQUIRE(map_all(*image) == model);
    check_content(*image, model);
    // Any part of it, as it is and clipped.
    for (int i = 0; i < 20; i++) {
      uint64_t from = below(random, kSize), length = below(random, kSize - from + 1);
      Bytes part(length);
      image->read(kBase + from, part);
      REQUIRE(std::equal(part.begin(), part.end(), model.begin() + static_cast<ptrdiff_t>(from)));
      uint64_t page = below(random, kPages), pages = 1 + below(random, kPages - page);
      GpaRange range = {kBase + page * kPageSize, pages * kPageSize};
      Bytes expected(model.begin() + static_cast<ptrdiff_t>(page * kPageSize),
                     model.begin() + static_cast<ptrdiff_t>((page + pages) * kPageSize));
      Shared clipped = image->clipped(range);
      REQUIRE(read_all(*clipped, range.gpa, range.size) == expected);
      REQUIRE(map_all(*clipped, range.gpa, range.size) == expected);
    }
  }
}

TEST_CASE("image: joined images are each where it was") {
  for (uint64_t seed = 1; seed <= 8; seed++) {
    INFO("seed " << seed);
    Random random(seed);
    constexpr uint64_t kOther = uint64_t{4} << 30;
    Bytes low(kSize), high(kSize);
    Shared images[] = {overlay_at_random(random, empty_image(kOther), high, kOther),
                       overlay_at_random(random, empty_image(), low)};
    Shared joined = Image::joined(images);
    REQUIRE(joined->regions().size() == 2);
    REQUIRE(read_all(*joined) == low);
    REQUIRE(read_all(*joined, kOther) == high);
    REQUIRE(read_all(*joined->clipped({kOther, kSize}), kOther) == high);
  }
}

TEST_CASE("image: refuses what does not fit") {
  Random random(1);
  auto file = file_of(random_pages(random, 4));
  auto make = [&](std::vector<GpaRange> regions, std::vector<Extent> extents) {
    return code_of([&] { Image(std::move(regions), {file}, std::move(extents)); });
  };
  std::vector<GpaRange> region = {{kBase, kSize}};
  CHECK(make(region, {{0, kBase, 4 * kPageSize, 0}}).empty());
  CHECK(make(region, {{1, kBase, kPageSize, 0}}) == "ERR_SNAPSHOT_FORMAT");
  CHECK(make(region, {{0, kBase, 5 * kPageSize, 0}}) == "ERR_SNAPSHOT_FORMAT");
  CHECK(make(region, {{0, kBase, kPageSize, 4 * kPageSize}}) == "ERR_SNAPSHOT_FORMAT");
  CHECK(make(region, {{0, kBase, kPageSize, ~uint64_t{0} << 12}}) == "ERR_SNAPSHOT_FORMAT");
  CHECK(make(region, {{0, kBase, kPageSize, 1}}) == "ERR_SNAPSHOT_FORMAT");
  CHECK(make(region, {{0, kBase - kPageSize, 2 * kPageSize, 0}}) == "ERR_SNAPSHOT_FORMAT");
  CHECK(make(region, {{0, kBase, 2 * kPageSize, 0}, {0, kBase + kPageSize, kPageSize, 0}}) ==
        "ERR_SNAPSHOT_FORMAT");
  CHECK(make({{kBase, kSize}, {kBase + kPageSize, kSize}}, {}) == "ERR_SNAPSHOT_FORMAT");
  for (uint64_t bad : {uint64_t{1}, ~uint64_t{0} << 12, kGpaLimit}) {
    CHECK_FALSE(make({{bad, kPageSize}}, {}).empty());
    CHECK_FALSE(make({{0, bad}},
                     bad == kGpaLimit ? std::vector<Extent>{{0, 1, 1, 1}} : std::vector<Extent>{})
                    .empty());
    CHECK_FALSE(make(region, {{0, bad, kPageSize, 0}}).empty());
    CHECK_FALSE(make(region, {{0, kBase, bad, 0}}).empty());
  }
}

TEST_CASE("image: a read outside, or of a file cut short, is an error") {
  Random random(1);
  Bytes content = random_pages(random, 4);
  int fd = ::memfd_create("kvmsnap-test", MFD_CLOEXEC);
  REQUIRE(fd >= 0);
  UniqueFd owner(fd);
  write_all(fd, content.data(), content.size(), 0);
  Image image({{kBase, kSize}}, {BackingFile::duplicate(fd)}, {{0, kBase, 4 * kPageSize, 0}});
  Bytes page(kPageSize);
  CHECK(code_of([&] { image.read(kBase - 1, page); }) == "ERR_GUEST_ADDRESS");
  CHECK(code_of([&] { image.read(kBase + kSize - 1, page); }) == "ERR_GUEST_ADDRESS");
  CHECK(code_of([&] { image.read(~uint64_t{0}, page); }) == "ERR_GUEST_ADDRESS");
  CHECK(code_of([&] { image.read(kBase + 3 * kPageSize, page); }).empty());
  REQUIRE(::ftruncate(fd, 2 * kPageSize) == 0);
  CHECK(code_of([&] { image.read(kBase + kPageSize, page); }).empty());
  CHECK(code_of([&] { image.read(kBase + 3 * kPageSize, page); }) == "ERR_SNAPSHOT_CORRUPT");
}

}  // namespace kvmsnap
