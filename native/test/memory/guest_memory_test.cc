// Guest memory against a plain array of bytes, through writes and freezes.
#include "memory/guest_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <thread>

#include "memory/page_scan.h"
#include "test/catch.h"
#include "test/memory/bytes.h"

namespace kvmsnap {

namespace {

constexpr uint64_t kLow = 0x10000, kHigh = 0x40000;
constexpr uint64_t kSize = 0x30000;
using Bytes = std::vector<uint8_t>;

// Two regions that touch, so that accesses span them.
void add_regions(GuestMemory& memory, const std::shared_ptr<const Image>& image = nullptr) {
  memory.add({.slot = 3, .gpa = kHigh, .size = kSize}, image);
  memory.add({.slot = 0, .gpa = kLow, .size = kSize}, image);
}

Bytes read_all(const GuestMemory& memory) {
  Bytes bytes(2 * kSize, 0xEE);
  memory.read(kLow, bytes);
  return bytes;
}

Bytes read_all(const Image& image) {
  Bytes bytes(2 * kSize, 0xEE);
  image.read(kLow, std::span(bytes).first(kSize));
  image.read(kHigh, std::span(bytes).subspan(kSize));
  return bytes;
}

void write_at_random(Random& random, GuestMemory& memory, Bytes& model) {
  uint64_t from = below(random, model.size());
  Bytes bytes(1 + below(random, std::min<uint64_t>(3 * kPageSize, model.size() - from)));
  for (auto& byte : bytes) byte = static_cast<uint8_t>(random());
  std::copy(bytes.begin(), bytes.end(), model.begin() + static_cast<ptrdiff_t>(from));
  if (below(random, 2) == 0) {
    memory.write(kLow + from, bytes);
    return;
  }
  // As a guest does: through the mapping.
  for (size_t i = 0; i < bytes.size(); i++) {
    uint64_t at = from + i;
    (at < kSize ? memory.host(0)[at] : memory.host(3)[at - kSize]) = bytes[i];
  }
}

}  // namespace

TEST_CASE("guest memory: each freeze keeps its instant, and the machine goes on, or back to it") {
  for (uint64_t seed = 1; seed <= 10; seed++) {
    INFO("seed " << seed);
    Random random(seed);
    GuestMemory memory;
    add_regions(memory);
    Bytes model(2 * kSize);
    std::vector<std::pair<std::shared_ptr<const Image>, Bytes>> frozen;
    for (int step = 0; step < 60; step++) {
      if (below(random, 6) == 0) {
        frozen.emplace_back(memory.freeze().image, model);
      } else if (!frozen.empty() && below(random, 8) == 0) {
        const auto& [image, bytes] = frozen[below(random, frozen.size())];
        memory.reset(image);
        model = bytes;
      } else {
        write_at_random(random, memory, model);
      }
      REQUIRE(read_all(memory) == model);
    }
    for (const auto& [image, bytes] : frozen) {
      REQUIRE(read_all(*image) == bytes);
      // A machine made from it, which then writes, leaves it alone.
      GuestMemory twin;
      add_regions(twin, image);
      Bytes twin_model = bytes;
      REQUIRE(read_all(twin) == bytes);
      for (int i = 0; i < 5; i++) write_at_random(random, twin, twin_model);
      auto again = twin.freeze().image;
      write_at_random(random, twin, twin_model);
      REQUIRE(read_all(twin) == twin_model);
      REQUIRE(read_all(*image) == bytes);
    }
    REQUIRE(read_all(memory) == model);
  }
}

TEST_CASE("guest memory: cold memory that is loosened while others write keeps every byte") {
  for (uint64_t seed = 1; seed <= 20; seed++) {
    INFO("seed " << seed);
    Random random(seed);
    GuestMemory memory;
    add_regions(memory);
    Bytes model(2 * kSize);
    std::atomic<bool> ended = false;
    std::thread loosening([&] {
      while (!ended) memory.loosen();
    });
    for (int step = 0; step < 200; step++) write_at_random(random, memory, model);
    bool equal = read_all(memory) == model;
    // Frozen meanwhile, it is private: what is written then must not be dropped.
    auto image = memory.freeze().image;
    Bytes later = model;
    for (int step = 0; step < 200; step++) write_at_random(random, memory, later);
    memory.loosen();
    ended = true;
    loosening.join();
    REQUIRE(equal);
    REQUIRE(read_all(memory) == later);
    REQUIRE(read_all(*image) == model);
  }
}

TEST_CASE("guest memory: what is written in page tables stays while mappings are held") {
  GuestMemory memory;
  memory.add({.slot = 0, .gpa = 0, .size = 64 * kPageSize}, nullptr);
  Bytes ones(64 * kPageSize, 1);
  memory.write(0, ones);
  auto there = [&] {
    int map = ::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    uint64_t entry = 0;
    auto at = reinterpret_cast<uintptr_t>(memory.host(0)) / kPageSize * sizeof entry;
    REQUIRE(::pread(map, &entry, sizeof entry, static_cast<off_t>(at)) == sizeof entry);
    ::close(map);
    return (entry >> 63) != 0;
  };
  // As a guest touches it, not as the VMM copies.
  memory.host(0)[0] = 2;
  REQUIRE(there());
  memory.hold_mappings(true);
  memory.loosen();
  REQUIRE(there());
  memory.hold_mappings(false);
  memory.loosen();
  REQUIRE_FALSE(there());
  uint8_t byte = 0;
  memory.read(0, {&byte, 1});
  REQUIRE(byte == 2);
}

TEST_CASE("guest memory: more scattered pages than are mapped anew") {
  // So few that a reset copies them, and so many that it drops them.
  uint64_t pages = GENERATE(uint64_t{1500}, uint64_t{6144});
  Random random(7);
  GuestMemory memory;
  memory.add({.slot = 0, .gpa = 0, .size = pages * kPageSize}, nullptr);
  Bytes model(pages * kPageSize);
  std::vector<std::pair<std::shared_ptr<const Image>, Bytes>> frozen;
  for (int round = 0; round < 4; round++) {
    frozen.emplace_back(memory.freeze().image, model);
    for (uint64_t page = static_cast<uint64_t>(round); page < pages; page += 3) {
      uint64_t value = random();
      memory.write(page * kPageSize, {reinterpret_cast<uint8_t*>(&value), sizeof value});
      std::memcpy(model.data() + page * kPageSize, &value, sizeof value);
    }
  }
  for (const auto& [image, bytes] : frozen) {
    Bytes read(bytes.size());
    image->read(0, read);
    REQUIRE(read == bytes);
  }
  // Back to the last one, whose pages lie over older ones.
  const auto& [last, bytes] = frozen.back();
  for (uint64_t step : {uint64_t{61}, uint64_t{1}}) {
    for (uint64_t page = 0; page < pages; page += step) {
      memory.host(0)[page * kPageSize] ^= 0x5A;
    }
    memory.reset(last);
    Bytes read(bytes.size());
    memory.read(0, read);
    REQUIRE(read == bytes);
  }
}

TEST_CASE("guest memory: what is not RAM is refused, and nothing is copied") {
  GuestMemory memory;
  add_regions(memory);
  Bytes bytes(2 * kSize, 0x55);
  for (uint64_t gpa : {uint64_t{0}, kLow - 1, kLow + 1, kHigh + kSize, ~uint64_t{0}, kGpaLimit}) {
    INFO("gpa " << gpa);
    CHECK(code_of([&] { memory.write(gpa, bytes); }) == "ERR_GUEST_ADDRESS");
    CHECK(code_of([&] { memory.read(gpa, bytes); }) == "ERR_GUEST_ADDRESS");
  }
  CHECK(read_all(memory) == Bytes(2 * kSize));
  CHECK(code_of([&] { memory.read(kHigh + kSize, {}); }).empty());
  auto add = [&](const RegionSpec& spec) { return code_of([&] { memory.add(spec, nullptr); }); };
  CHECK(add({.slot = 1, .gpa = kHigh, .size = kPageSize}) == "ERR_INVALID_ARGUMENT");
  CHECK(add({.slot = 3, .gpa = 0, .size = kPageSize}) == "ERR_INVALID_ARGUMENT");
  CHECK(add({.slot = 1, .gpa = 0, .size = 0}) == "ERR_INVALID_ARGUMENT");
  CHECK(add({.slot = 1, .gpa = 1, .size = kPageSize}) == "ERR_INVALID_ARGUMENT");
  CHECK(add({.slot = 1, .gpa = ~uint64_t{0} << 12, .size = kPageSize}) == "ERR_INVALID_ARGUMENT");
  CHECK(add({.slot = 1, .gpa = 0x100000, .size = kGpaLimit}) == "ERR_INVALID_ARGUMENT");
  CHECK(code_of([&] { memory.remove(1); }) == "ERR_INVALID_ARGUMENT");
  CHECK(memory.regions().size() == 2);
}

TEST_CASE("guest memory: a file cut short under it is an error, not a signal") {
  UniqueFd fd(::memfd_create("kvmsnap-test", MFD_CLOEXEC));
  REQUIRE(::ftruncate(fd.get(), kSize) == 0);
  auto image = std::make_shared<const Image>(
      std::vector<GpaRange>{{kLow, kSize}},
      std::vector<std::shared_ptr<const BackingFile>>{BackingFile::duplicate(fd.get())},
      std::vector<Extent>{{0, kLow, kSize, 0}});
  GuestMemory memory;
  memory.add({.slot = 0, .gpa = kLow, .size = kSize}, image);
  Bytes page(kPageSize, 1);
  memory.write(kLow, page);
  REQUIRE(::ftruncate(fd.get(), 0) == 0);
  CHECK(code_of([&] { memory.read(kLow + kPageSize, page); }) == "ERR_SNAPSHOT_CORRUPT");
  CHECK(code_of([&] { memory.write(kLow + kPageSize, page); }) == "ERR_SNAPSHOT_CORRUPT");
}

TEST_CASE("page scan: finds what was written and nothing that was read") {
  constexpr uint64_t kPages = 3000;
  Random random(3);
  auto file = file_of(Bytes(kPages * kPageSize, 9));
  Mapping range(kPages * kPageSize, PROT_READ | PROT_WRITE, MAP_PRIVATE, file->fd());
  std::vector<bool> written(kPages);
  unsigned sum = 0;
  for (uint64_t page = 0; page < kPages; page++) {
    switch (below(random, 3)) {
      case 0:
        range.get()[page * kPageSize] = 1;
        written[page] = true;
        break;
      case 1:
        sum += *const_cast<volatile uint8_t*>(range.get() + page * kPageSize);
        break;
      default:
        break;
    }
  }
  REQUIRE(sum > 0);
  std::vector<bool> found(kPages);
  uint64_t base = reinterpret_cast<uintptr_t>(range.get()), last = 0;
  for (const HostRun& run : scan_private_pages(range.get(), range.size())) {
    REQUIRE(run.start > last);
    for (uint64_t at = run.start; at < run.end; at += kPageSize) {
      found[(at - base) / kPageSize] = true;
    }
    last = run.end;
  }
  REQUIRE(found == written);
}

}  // namespace kvmsnap
