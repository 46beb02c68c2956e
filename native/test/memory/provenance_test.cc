// What changed between two images, against a model that knows where each page comes from.
#include "memory/provenance.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <iterator>
#include <set>

#include "memory/image_layout.h"
#include "test/catch.h"
#include "test/memory/bytes.h"

namespace kvmsnap {

namespace {

constexpr uint64_t kBase = 0x100000;
constexpr uint64_t kPages = 96;
constexpr uint64_t kSize = kPages * kPageSize;
// Next to each other: what changed must not be told as one range over both.
const std::vector<GpaRange> kRegions = {{kBase, 40 * kPageSize},
                                        {kBase + 40 * kPageSize, 56 * kPageSize}};

using Bytes = std::vector<uint8_t>;
using Shared = std::shared_ptr<const Image>;
using Mark = std::shared_ptr<const Provenance>;

// An image, what its bytes must be, and for each page a number that is another for each origin.
struct Memory {
  Shared image;
  Bytes bytes = Bytes(kSize);
  std::vector<uint64_t> origins = std::vector<uint64_t>(kPages);
};

Memory nothing() {
  return {std::make_shared<const Image>(kRegions, std::vector<std::shared_ptr<const BackingFile>>{},
                                        std::vector<Extent>{})};
}

// A machine's first memory: one file.
Memory root(Random& random) {
  Memory memory;
  memory.bytes = random_pages(random, kPages);
  for (uint64_t& origin : memory.origins) origin = random();
  std::vector<Extent> whole = {{0, kRegions[0].gpa, kRegions[0].size, 0},
                               {0, kRegions[1].gpa, kRegions[1].size, kRegions[0].size}};
  memory.image = std::make_shared<const Image>(
      kRegions, std::vector<std::shared_ptr<const BackingFile>>{file_of(memory.bytes)},
      std::move(whole));
  return memory;
}

Memory overlaid(Random& random, const Memory& below_it) {
  static uint64_t next_origin = 1;
  Memory memory = below_it;
  uint64_t file_pages = 1 + below(random, 30);
  Bytes content = random_pages(random, file_pages);
  std::vector<Extent> extents;
  uint64_t origin = next_origin;
  next_origin += file_pages;
  for (uint64_t page = below(random, 20); page < kPages;) {
    uint64_t limit = page < 40 ? 40 : kPages;
    uint64_t length = std::min({1 + below(random, 6), limit - page, file_pages});
    uint64_t from = below(random, file_pages - length + 1);
    extents.push_back({.file = 0,
                       .gpa = kBase + page * kPageSize,
                       .length = length * kPageSize,
                       .offset = from * kPageSize});
    for (uint64_t i = 0; i < length; i++) memory.origins[page + i] = origin + from + i;
    std::copy_n(content.begin() + static_cast<ptrdiff_t>(from * kPageSize), length * kPageSize,
                memory.bytes.begin() + static_cast<ptrdiff_t>(page * kPageSize));
    page += length + below(random, 30);
  }
  memory.image = below_it.image->overlaid(file_of(content), std::move(extents));
  return memory;
}

Mark mark_of(const Memory& memory) { return std::make_shared<const Provenance>(*memory.image); }

std::set<uint64_t> pages_of(const std::vector<GpaRange>& ranges) {
  std::set<uint64_t> pages;
  uint64_t end = 0;
  for (const GpaRange& range : ranges) {
    REQUIRE(range.gpa >= end);
    end = range.end();
    bool inside = std::any_of(kRegions.begin(), kRegions.end(), [&](const GpaRange& region) {
      return range.gpa >= region.gpa && range.end() <= region.end();
    });
    REQUIRE(inside);
    for (uint64_t gpa = range.gpa; gpa < end; gpa += kPageSize) {
      REQUIRE(pages.insert((gpa - kBase) / kPageSize).second);
    }
  }
  return pages;
}

std::set<uint64_t> differing(const Memory& now, const Memory& before) {
  std::set<uint64_t> pages;
  for (uint64_t page = 0; page < kPages; page++) {
    if (now.origins[page] != before.origins[page]) pages.insert(page);
  }
  return pages;
}

bool zero_in(const Memory& memory, uint64_t page) {
  auto start = memory.bytes.begin() + static_cast<ptrdiff_t>(page * kPageSize);
  return std::all_of(start, start + kPageSize, [](uint8_t byte) { return byte == 0; });
}

}  // namespace

TEST_CASE("provenance: what changed is what has another origin, in a tree of images") {
  for (uint64_t seed = 1; seed <= 30; seed++) {
    INFO("seed " << seed);
    Random random(seed);
    std::vector<Memory> tree = {seed % 2 ? root(random) : nothing()};
    std::vector<Mark> marks = {mark_of(tree[0])};
    for (int i = 0; i < 12; i++) {
      tree.push_back(overlaid(random, tree[below(random, tree.size())]));
      marks.push_back(mark_of(tree.back()));
    }
    for (int i = 0; i < 40; i++) {
      size_t now = below(random, tree.size()), one = below(random, tree.size());
      size_t other = below(random, tree.size());
      std::set<uint64_t> expected = differing(tree[now], tree[one]);
      REQUIRE(pages_of(changed_since(*tree[now].image, std::span(&marks[one], 1))) == expected);

      // Two marks: what differs from both.
      std::set<uint64_t> second = differing(tree[now], tree[other]), both;
      std::set_intersection(expected.begin(), expected.end(), second.begin(), second.end(),
                            std::inserter(both, both.end()));
      std::vector<Mark> two = {marks[one], marks[other]};
      REQUIRE(pages_of(changed_since(*tree[now].image, two)) == both);

      // Those of them that are zeros, and those that are not.
      std::atomic<bool> cancelled = false;
      Content content = changed_content(*tree[now].image, std::span(&marks[one], 1), cancelled);
      std::set<uint64_t> zeros;
      for (uint64_t page : expected) {
        if (zero_in(tree[now], page)) zeros.insert(page);
      }
      REQUIRE(pages_of(content.zeros) == zeros);
      for (uint64_t page : zeros) expected.erase(page);
      REQUIRE(pages_of(content.stored) == expected);
      REQUIRE(content.stored_bytes() == expected.size() * kPageSize);
    }
  }
}

TEST_CASE("provenance: the pieces of an image, and what they are joined to, are of its origin") {
  Random random(7);
  Memory before = overlaid(random, root(random));
  Memory now = overlaid(random, before);
  Shared parts[] = {now.image->clipped(kRegions[1]), now.image->clipped(kRegions[0])};
  Shared joined = Image::joined(parts);
  Mark mark = mark_of(before);
  CHECK(joined->lineage() == before.image->lineage());
  CHECK(pages_of(changed_since(*joined, std::span(&mark, 1))) == differing(now, before));
}

TEST_CASE("provenance: all of a memory may be written, and it is still the same machine's") {
  Random random(3);
  Memory before = overlaid(random, root(random));
  Mark mark = mark_of(before);
  Bytes content = random_pages(random, kPages);
  std::vector<Extent> all = {{0, kRegions[0].gpa, kRegions[0].size, 0},
                             {0, kRegions[1].gpa, kRegions[1].size, kRegions[0].size}};
  Shared rewritten = before.image->overlaid(file_of(content), all);
  CHECK(pages_of(changed_since(*rewritten, std::span(&mark, 1))).size() == kPages);
}

TEST_CASE("provenance: refuses the memory of another machine, and other regions") {
  Random random(5);
  Memory one = overlaid(random, root(random)), other = overlaid(random, root(random));
  Mark mark = mark_of(one);
  auto changed = [&](const Image& image) {
    return code_of([&] { changed_since(image, std::span(&mark, 1)); });
  };
  CHECK(changed(*other.image) == "ERR_INVALID_ARGUMENT");
  CHECK(changed(*one.image->clipped(kRegions[0])) == "ERR_INVALID_ARGUMENT");
  CHECK(code_of([&] { changed_since(*one.image, {}); }) == "ERR_INVALID_ARGUMENT");
  // All zeros: everything has it below.
  Mark zeros = mark_of(nothing());
  CHECK(pages_of(changed_since(*one.image, std::span(&zeros, 1))) == differing(one, nothing()));
}

TEST_CASE("provenance: a cancelled comparison ends") {
  Random random(9);
  Memory before = overlaid(random, root(random));
  Memory now = overlaid(random, before);
  Mark mark = mark_of(before);
  std::atomic<bool> cancelled = true;
  CHECK(code_of([&] { changed_content(*now.image, std::span(&mark, 1), cancelled); }) ==
        "ERR_ABORTED");
}

TEST_CASE("provenance: a file that was cut short is not taken for zeros") {
  Random random(15);
  Memory before = root(random);
  Mark mark = mark_of(before);
  UniqueFd fd(::memfd_create("kvmsnap-test", MFD_CLOEXEC));
  for (uint64_t pages : {1, 30}) {
    REQUIRE(::ftruncate(fd.get(), 40 * kPageSize) == 0);
    auto now = before.image->overlaid(BackingFile::duplicate(fd.get()),
                                      {{0, kBase, pages * kPageSize, 0}});
    std::atomic<bool> cancelled = false;
    auto compare = [&] { changed_content(*now, std::span(&mark, 1), cancelled); };
    CHECK(code_of(compare).empty());
    REQUIRE(::ftruncate(fd.get(), 0) == 0);
    CHECK(code_of(compare) == "ERR_SNAPSHOT_CORRUPT");
  }
}

TEST_CASE("backing file: the same file opened twice is one, while it is in use") {
  char path[] = "/tmp/kvmsnap-provenance-XXXXXX";
  UniqueFd fd(::mkstemp(path));
  REQUIRE(fd);
  UniqueFd again(::open(path, O_RDONLY | O_CLOEXEC));
  ::unlink(path);
  REQUIRE(::ftruncate(fd.get(), 2 * kPageSize) == 0);
  auto first = BackingFile::duplicate(fd.get());
  auto second = BackingFile::duplicate(again.get());
  CHECK(first == second);
  auto memfd = BackingFile::create_memfd("kvmsnap-test", kPageSize);
  CHECK(memfd->id() != first->id());
  // Of another size its bytes are not what they were.
  REQUIRE(::ftruncate(fd.get(), kPageSize) == 0);
  auto shorter = BackingFile::duplicate(again.get());
  CHECK(shorter != first);
  CHECK(shorter->size() == kPageSize);
  uint64_t id = shorter->id();
  first = second = shorter = nullptr;
  CHECK(BackingFile::duplicate(fd.get())->id() > id);
}

TEST_CASE("backing file: files of one digest have one id, though they are two") {
  auto file = [] {
    char path[] = "/tmp/kvmsnap-provenance-XXXXXX";
    UniqueFd fd(::mkstemp(path));
    ::unlink(path);
    REQUIRE(::ftruncate(fd.get(), kPageSize) == 0);
    return fd;
  };
  UniqueFd one = file(), equal = file(), other = file();
  auto first = BackingFile::duplicate(one.get(), "sha256:00f00000000000000123456789abcdef");
  auto second = BackingFile::duplicate(equal.get(), "sha256:00f00000000000000123456789abcdef");
  auto third = BackingFile::duplicate(other.get(), "sha256:00f00000000000000123456789abcdee");
  CHECK(first != second);
  CHECK(first->id() == second->id());
  CHECK(first->id() != third->id());
  CHECK(BackingFile::create_memfd("kvmsnap-test", kPageSize)->id() < first->id());
  for (const char* bad : {"sha256:", "0123456789abcde", "sha256:000000000000000x"}) {
    UniqueFd fresh = file();
    CHECK_THROWS(BackingFile::duplicate(fresh.get(), bad));
  }
}

}  // namespace kvmsnap
