// Images of many layers, as ones of few; and guest memory that does so by itself.
#include "memory/flatten.h"

#include <dirent.h>
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <fstream>
#include <map>
#include <string>
#include <thread>

#include "memory/guest_memory.h"
#include "memory/provenance.h"
#include "test/catch.h"
#include "test/memory/bytes.h"

namespace kvmsnap {

namespace {

using Bytes = std::vector<uint8_t>;
using Shared = std::shared_ptr<const Image>;

// They touch, and neither begins nor ends at a granule.
const std::vector<GpaRange> kRegions = {{0x3000, 2 * kGranule}, {0x3000 + 2 * kGranule, kGranule}};
constexpr uint64_t kBase = 0x3000;
constexpr uint64_t kSize = 3 * kGranule;
constexpr uint64_t kPages = kSize / kPageSize;

const std::atomic<bool> kNever = false;

Shared base_image(Random& random, Bytes& model) {
  model = random_pages(random, kPages);
  return std::make_shared<const Image>(
      kRegions, std::vector<std::shared_ptr<const BackingFile>>{file_of(model)},
      std::vector<Extent>{{0, kBase, kRegions[0].size, 0},
                          {0, kRegions[1].gpa, kRegions[1].size, kRegions[0].size}});
}

// A layer of a few runs of pages, which may reach over earlier ones.
Shared with_layer(Random& random, const Image& image, Bytes& model, uint64_t runs) {
  std::map<uint64_t, uint64_t> places;
  for (uint64_t i = 0; i < runs; i++) places[below(random, kPages)] = 1 + below(random, 5);
  Bytes content;
  std::vector<Extent> extents;
  uint64_t done = 0;
  for (const auto& [first, wanted] : places) {
    uint64_t page = std::max(first, done);
    // Inside one region.
    uint64_t end = page < kRegions[0].size / kPageSize ? kRegions[0].size / kPageSize : kPages;
    uint64_t count = std::min(wanted, end - std::min(end, page));
    if (count == 0) continue;
    done = page + count;
    Bytes bytes = random_pages(random, count);
    std::copy(bytes.begin(), bytes.end(), model.begin() + static_cast<ptrdiff_t>(page * kPageSize));
    extents.push_back({0, kBase + page * kPageSize, count * kPageSize, content.size()});
    content.insert(content.end(), bytes.begin(), bytes.end());
  }
  return image.overlaid(file_of(content), std::move(extents));
}

Bytes read_all(const Image& image) {
  Bytes bytes(kSize, 0xEE);
  image.read(kBase, std::span(bytes).first(kRegions[0].size));
  image.read(kRegions[1].gpa, std::span(bytes).subspan(kRegions[0].size));
  return bytes;
}

size_t open_files() {
  size_t count = 0;
  DIR* directory = ::opendir("/proc/self/fd");
  REQUIRE(directory != nullptr);
  while (::readdir(directory) != nullptr) count++;
  ::closedir(directory);
  return count;
}

// As a guest does: the sanitizers see neither its writes, nor that it waits for protected pages.
__attribute__((no_sanitize("thread", "address"))) void store(uint8_t* at, uint64_t value) {
  *reinterpret_cast<volatile uint64_t*>(at) = value;
}

// How many there are in that range.
size_t mappings(const uint8_t* host, uint64_t size) {
  std::ifstream maps("/proc/self/maps");
  size_t count = 0;
  for (std::string line; std::getline(maps, line);) {
    uint64_t start = std::stoull(line, nullptr, 16);
    uint64_t base = reinterpret_cast<uintptr_t>(host);
    if (start >= base && start < base + size) count++;
  }
  return count;
}

bool can_protect() {
  try {
    Userfault userfault(WriteFault::Sync);
    return true;
  } catch (const Error& why) {
    WARN("memory is not mapped anew by itself here: " << why.what());
    return false;
  }
}

void wait_for(const GuestMemory& memory) {
  for (int i = 0; memory.flattening(); i++) {
    REQUIRE(i < 20'000);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

}  // namespace

TEST_CASE("flatten: the same bytes in few files, by the names they had") {
  for (uint64_t seed = 1; seed <= 8; seed++) {
    INFO("seed " << seed);
    Random random(seed);
    Bytes model;
    Shared image = base_image(random, model);
    Shared before;
    // Flattened again and again, as a machine's image is.
    for (int turn = 0; turn < 3; turn++) {
      for (int layer = 0; layer < 20; layer++) image = with_layer(random, *image, model, 6);
      REQUIRE(image->files().size() > 10);
      Provenance mark(*image);
      Shared flat = flattened(*image, kNever);
      REQUIRE(flat != nullptr);
      CHECK(flat->files().size() <= 5);
      REQUIRE(read_all(*flat) == model);
      CHECK(flat->lineage() == image->lineage());
      CHECK(mark.changed_in(*flat).empty());
      CHECK(Provenance(*flat).changed_in(*image).empty());
      // Who marked an older one finds what was written since, and no more.
      if (before != nullptr) {
        auto changed = Provenance(*before).changed_in(*image);
        auto in_flat = Provenance(*before).changed_in(*flat);
        REQUIRE(changed.size() == in_flat.size());
        for (size_t i = 0; i < changed.size(); i++) {
          CHECK(changed[i].gpa == in_flat[i].gpa);
          CHECK(changed[i].size == in_flat[i].size);
        }
      }
      before = image;
      image = flat;
    }
    CHECK(flattened(*base_image(random, model), kNever) == nullptr);
  }
}

TEST_CASE("flatten: what was frozen meanwhile stays over it, and other images are left alone") {
  for (uint64_t seed = 1; seed <= 8; seed++) {
    INFO("seed " << seed);
    Random random(seed);
    Bytes model;
    Shared older = base_image(random, model);
    for (int layer = 0; layer < 3; layer++) older = with_layer(random, *older, model, 20);
    Bytes older_model = model;
    Shared image = older;
    for (int layer = 0; layer < 12; layer++) image = with_layer(random, *image, model, 20);
    Bytes image_model = model;
    Shared now = image;
    for (int layer = 0; layer < 3; layer++) now = with_layer(random, *now, model, 20);
    Shared flat = flattened(*image, kNever);
    REQUIRE(flat != nullptr);

    Shared fresh = rebased(*now, *image, *flat);
    REQUIRE(read_all(*fresh) == model);
    CHECK(fresh->files().size() <= flat->files().size() + 3);
    CHECK(Provenance(*now).changed_in(*fresh).empty());
    REQUIRE(read_all(*rebased(*image, *image, *flat)) == image_model);
    // It shares files with the flattened one that say something else there.
    REQUIRE(read_all(*rebased(*older, *image, *flat)) == older_model);
    Bytes other_model;
    Shared other = base_image(random, other_model);
    REQUIRE(read_all(*rebased(*other, *image, *flat)) == other_model);
  }
}

TEST_CASE("flatten: it can be cancelled, and fail, and the image is what it was") {
  Random random(5);
  Bytes model;
  Shared image = base_image(random, model);
  for (int layer = 0; layer < 8; layer++) image = with_layer(random, *image, model, 20);
  std::atomic<bool> cancelled = true;
  CHECK(code_of([&] { flattened(*image, cancelled); }) == "ERR_ABORTED");
  rlimit limit = {};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &limit) == 0);
  rlimit none = limit;
  none.rlim_cur = 0;
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &none) == 0);
  std::string code = code_of([&] { flattened(*image, kNever); });
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &limit) == 0);
  CHECK(code == "ERR_SYSTEM");
  REQUIRE(read_all(*image) == model);
}

TEST_CASE("flatten: memory frozen 500 times keeps few files, and each image its instant") {
  Random random(31);
  GuestMemory memory;
  memory.add({.slot = 1, .gpa = kRegions[0].gpa, .size = kRegions[0].size}, nullptr);
  memory.add({.slot = 2, .gpa = kRegions[1].gpa, .size = kRegions[1].size}, nullptr);
  Bytes model(kSize);
  std::vector<std::pair<Shared, Bytes>> kept;
  size_t files = open_files();
  size_t most = 0;
  for (int step = 0; step < 500; step++) {
    for (int i = 0; i < 12; i++) {
      uint64_t page = below(random, kPages);
      Bytes bytes = random_pages(random, 1);
      memory.write(kBase + page * kPageSize, bytes);
      std::copy(bytes.begin(), bytes.end(),
                model.begin() + static_cast<ptrdiff_t>(page * kPageSize));
    }
    Shared image = memory.freeze().image;
    most = std::max(most, image->files().size());
    if (step % 60 == 59) kept.emplace_back(image, model);
    // Back to an image whose layers may have been flattened since.
    if (step % 97 == 96) {
      memory.reset(kept.back().first);
      model = kept.back().second;
    }
    if (step % 50 == 0) wait_for(memory);
  }
  wait_for(memory);
  // Two regions, each with what makes one of them be flattened, and what comes meanwhile.
  constexpr size_t kMost = 320;
  CHECK(most <= kMost);
  for (const auto& [image, bytes] : kept) REQUIRE(read_all(*image) == bytes);
  Bytes now(kSize);
  memory.read(kBase, now);
  REQUIRE(now == model);
  kept.clear();
  memory.freeze();
  wait_for(memory);
  constexpr size_t kMostOpen = 160;
  CHECK(open_files() <= files + kMostOpen);
  memory.clear();
  CHECK(open_files() <= files);
}

TEST_CASE("flatten: memory is flattened and mapped anew under a guest that writes") {
  constexpr uint64_t kMemory = 4 * kGranule;
  constexpr uint64_t kWords = kMemory / kPageSize;
  using Words = std::vector<uint64_t>;
  GuestMemory memory;
  memory.add({.slot = 0, .gpa = 0, .size = kMemory}, nullptr);
  memory.freeze();
  std::atomic<bool> stop = false;
  // What the guest has written last to each page; changes while nobody holds the lock.
  std::mutex standing;
  Words words(kWords);
  std::thread guest([&] {
    Random random(41);
    for (uint64_t value = 1; !stop; value++) {
      // So slow that layers pile up before later ones cover them.
      std::this_thread::sleep_for(std::chrono::microseconds(200));
      std::lock_guard lock(standing);
      for (int i = 0; i < 20; i++) {
        uint64_t page = below(random, kWords);
        store(memory.host(0) + page * kPageSize, value);
        store(memory.host(0) + (page + 1) * kPageSize - sizeof value, value);
        words[page] = value;
      }
    }
  });
  auto check = [&](const auto& source, const Words& expected) {
    Bytes bytes(kMemory);
    source.read(0, bytes);
    for (uint64_t page = 0; page < kWords; page++) {
      uint64_t first = 0, last = 0;
      std::memcpy(&first, &bytes[page * kPageSize], sizeof first);
      std::memcpy(&last, &bytes[(page + 1) * kPageSize - sizeof last], sizeof last);
      REQUIRE(first == expected[page]);
      REQUIRE(last == expected[page]);
    }
  };
  std::vector<std::pair<Shared, Words>> kept;
  int flattened = 0;
  for (int step = 0; step < 500; step++) {
    std::this_thread::sleep_for(std::chrono::microseconds(200));
    bool wait = false;
    {
      std::lock_guard lock(standing);
      bool before = memory.flattening();
      Shared image = memory.freeze().image;
      wait = !before && memory.flattening();
      if (step % 60 == 59) {
        check(memory, words);
        kept.emplace_back(image, words);
      }
      if (step % 90 == 89) {
        memory.reset(image);
        check(memory, words);
      }
    }
    // The guest has it for itself for a while.
    if (wait && ++flattened % 2 == 0) wait_for(memory);
  }
  stop = true;
  guest.join();
  wait_for(memory);
  CHECK(flattened > 1);
  check(memory, words);
  for (const auto& [image, expected] : kept) {
    check(*image, expected);
    memory.reset(image);
    check(memory, expected);
  }
}

TEST_CASE("flatten: what freezes have cut up is mapped in few pieces again") {
  if (!can_protect()) return;
  constexpr uint64_t kMemory = 4 * kGranule;
  GuestMemory memory;
  memory.add({.slot = 0, .gpa = 0, .size = kMemory}, nullptr);
  Bytes model(kMemory);
  memory.freeze();
  Random random(43);
  // A freeze maps what was written since the last one anew; the image of all that is a few files.
  bool seen = false;
  size_t most = 0;
  for (int step = 0; step < 200 && !seen; step++) {
    for (int i = 0; i < 20; i++) {
      uint64_t at = below(random, kMemory / kPageSize) * kPageSize;
      model[at] = memory.host(0)[at] = static_cast<uint8_t>(random());
    }
    memory.freeze();
    most = std::max(most, mappings(memory.host(0), kMemory));
    seen = memory.flattening();
  }
  REQUIRE(seen);
  REQUIRE(most > 500);
  // Written, and then as it was: a reset tells of it all the same.
  Shared image = memory.freeze().image;
  uint8_t before = memory.host(0)[0];
  memory.host(0)[0] = static_cast<uint8_t>(before + 1);
  memory.host(0)[0] = before;
  wait_for(memory);
  CHECK(mappings(memory.host(0), kMemory) < most / 4);
  std::vector<GpaRange> written = memory.reset(image);
  CHECK(std::any_of(written.begin(), written.end(),
                    [](const GpaRange& range) { return range.gpa == 0; }));
  Bytes now(kMemory);
  memory.read(0, now);
  REQUIRE(now == model);
}

TEST_CASE("flatten: nothing is mapped anew by itself while others protect pages") {
  constexpr uint64_t kMemory = 4 * kGranule;
  GuestMemory memory;
  memory.add({.slot = 0, .gpa = 0, .size = kMemory}, nullptr);
  memory.freeze();
  memory.hold_mappings(true);
  Random random(47);
  for (int step = 0; step < 100; step++) {
    for (int i = 0; i < 20; i++) memory.host(0)[below(random, kMemory / kPageSize) * kPageSize]++;
    memory.freeze();
  }
  wait_for(memory);
  CHECK(mappings(memory.host(0), kMemory) > 500);
}

TEST_CASE("flatten: memory that goes while it is flattened") {
  for (int round = 0; round < 10; round++) {
    GuestMemory memory;
    memory.add({.slot = 0, .gpa = 0, .size = 16 * kGranule}, nullptr);
    memory.freeze();
    for (int step = 0; step < 66; step++) {
      for (uint64_t page = static_cast<uint64_t>(step); page < 4096; page += 66) {
        uint64_t value = page;
        memory.write(page * kPageSize, {reinterpret_cast<uint8_t*>(&value), sizeof value});
      }
      memory.freeze();
    }
    if (round % 2 == 0) memory.remove(0);
    if (round % 3 == 0) memory.clear();
  }
}

}  // namespace kvmsnap
