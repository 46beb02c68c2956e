// Trackers of memory against a model, on plain mappings: no guest, no KVM.
#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <set>
#include <string>
#include <thread>

#include "memory/page_scan.h"
#include "memory/tracker_cow.h"
#include "memory/tracker_pagemap.h"
#include "memory/tracker_uffd.h"
#include "test/catch.h"
#include "test/memory/bytes.h"

namespace kvmsnap {

namespace {

constexpr uint64_t kPages = 600;
constexpr uint64_t kHigh = uint64_t{1} << 32;
using Pages = std::set<std::pair<uint32_t, uint64_t>>;

template <typename T>
struct Kind {
  static std::unique_ptr<Tracker> make(GuestMemory& memory) { return std::make_unique<T>(memory); }
};
struct Made {
  std::string name;
  std::unique_ptr<Tracker> (*make)(GuestMemory&);
};
const Made kKinds[] = {{"cow", Kind<CowTracker>::make},
                       {"pagemap", Kind<PagemapTracker>::make},
                       {"uffd-wp", Kind<UffdTracker>::make}};

// Why the kernel or this user has no such tracker; empty if it has.
std::string refusal(const Made& kind) {
  GuestMemory memory;
  memory.add({.slot = 0, .gpa = 0, .size = kPageSize}, nullptr);
  try {
    kind.make(memory)->stop();
    return {};
  } catch (const Error& error) {
    return error.what();
  }
}

// Two slots whose sizes are no multiple of 64 pages.
void add_slots(GuestMemory& memory) {
  memory.add({.slot = 1, .gpa = kHigh, .size = (kPages + 7) * kPageSize}, nullptr);
  memory.add({.slot = 0, .gpa = 0, .size = kPages * kPageSize}, nullptr);
}

Pages harvest(Tracker& tracker, const GuestMemory& memory) {
  std::vector<DirtySlot> slots = clean_slots(memory);
  tracker.harvest(slots);
  Pages pages;
  for (const DirtySlot& slot : slots) {
    uint64_t count = 0;
    for (uint64_t page = 0; page < slot.bitmap.size() * 64; page++) {
      if ((slot.bitmap[page / 64] >> page % 64 & 1) == 0) continue;
      CHECK(page < slot.pages);
      pages.emplace(slot.slot, page);
      count++;
    }
    CHECK(count == slot.count());
  }
  return pages;
}

// Through the mapping as a guest does, or as the VMM does.
void touch(Random& random, GuestMemory& memory, Pages& model) {
  uint32_t slot = static_cast<uint32_t>(below(random, 2));
  uint64_t page = below(random, slot == 0 ? kPages : kPages + 7);
  model.emplace(slot, page);
  if (below(random, 3) == 0) {
    uint8_t byte = static_cast<uint8_t>(random());
    memory.write((slot == 0 ? 0 : kHigh) + page * kPageSize + below(random, kPageSize), {&byte, 1});
  } else {
    memory.host(slot)[page * kPageSize + below(random, kPageSize)]++;
  }
}

// Reading makes nothing dirty.
uint64_t read_all(const GuestMemory& memory) {
  uint64_t sum = 0;
  for (uint64_t page = 0; page < kPages; page++) sum += memory.host(0)[page * kPageSize];
  return sum;
}

}  // namespace

TEST_CASE("trackers: each harvest has exactly the pages written since the one before") {
  for (const Made& kind : kKinds) {
    std::string why = refusal(kind);
    if (!why.empty()) {
      WARN(kind.name << " cannot run here: " << why);
      continue;
    }
    uint64_t seed = GENERATE(1, 2, 3);
    CAPTURE(kind.name, seed);
    Random random(seed);
    GuestMemory memory;
    add_slots(memory);
    Pages before;
    for (int i = 0; i < 200; i++) touch(random, memory, before);

    auto tracker = kind.make(memory);
    CHECK(harvest(*tracker, memory).empty());
    for (int round = 0; round < 30; round++) {
      Pages model;
      for (uint64_t i = below(random, 150); i > 0; i--) touch(random, memory, model);
      read_all(memory);
      CHECK(harvest(*tracker, memory) == model);
    }
    tracker->stop();
    Pages after;
    for (int i = 0; i < 200; i++) touch(random, memory, after);
  }
}

TEST_CASE("trackers: memory that is mapped anew is watched on, and nothing is lost") {
  for (const Made& kind : kKinds) {
    if (!refusal(kind).empty()) continue;
    CAPTURE(kind.name);
    Random random(7);
    GuestMemory memory;
    add_slots(memory);
    auto tracker = kind.make(memory);
    for (int round = 0; round < 10; round++) {
      Pages model;
      for (int i = 0; i < 40; i++) touch(random, memory, model);
      std::vector<DirtySlot> found = clean_slots(memory);
      tracker->before_remap(found);
      // By the VMM only: a guest stands still.
      uint8_t byte = 1;
      memory.write(5 * kPageSize, {&byte, 1});
      model.emplace(0, 5);
      memory.freeze();
      tracker->after_remap();
      join_host_writes(memory, found);
      for (int i = 0; i < 40; i++) touch(random, memory, model);
      tracker->harvest(found);
      Pages pages;
      for (const DirtySlot& slot : found) {
        for (uint64_t page = 0; page < slot.pages; page++) {
          if ((slot.bitmap[page / 64] >> page % 64 & 1) != 0) pages.emplace(slot.slot, page);
        }
      }
      // What the VMM wrote is kept until somebody asks, so that there may be more.
      CHECK(std::includes(pages.begin(), pages.end(), model.begin(), model.end()));
    }
    tracker->stop();
  }
}

TEST_CASE("trackers: no write is lost beside a harvest") {
  for (const Made& kind : kKinds) {
    // Cow needs a machine that stands still.
    if (kind.name == "cow" || !refusal(kind).empty()) continue;
    CAPTURE(kind.name);
    GuestMemory memory;
    add_slots(memory);
    auto tracker = kind.make(memory);
    uint8_t* host = memory.host(0);
    std::atomic<bool> done = false;
    std::thread writer([&] {
      Random random(11);
      while (!done) {
        volatile uint8_t* page = host + below(random, 64) * kPageSize;
        __atomic_fetch_add(const_cast<uint32_t*>(reinterpret_cast<volatile uint32_t*>(page)), 1,
                           __ATOMIC_SEQ_CST);
      }
    });
    auto counts = [&] {
      std::array<uint32_t, 64> result;
      for (size_t i = 0; i < 64; i++) {
        result[i] =
            __atomic_load_n(reinterpret_cast<uint32_t*>(host + i * kPageSize), __ATOMIC_SEQ_CST);
      }
      return result;
    };
    harvest(*tracker, memory);
    size_t changes = 0, missed = 0;
    auto after = counts();
    for (int round = 0; round < 200; round++) {
      std::this_thread::sleep_for(std::chrono::microseconds(200));
      auto before = counts();
      Pages pages = harvest(*tracker, memory);
      for (uint64_t i = 0; i < 64; i++) {
        if (before[i] == after[i]) continue;
        changes++;
        if (!pages.contains({0, i})) missed++;
      }
      after = counts();
    }
    done = true;
    writer.join();
    CHECK(changes > 64);
    CHECK(missed == 0);
    tracker->stop();
  }
}

TEST_CASE("trackers: one that is dropped wakes who waits") {
  if (!refusal(kKinds[2]).empty()) return;
  GuestMemory memory;
  add_slots(memory);
  std::atomic<bool> done = false;
  std::thread writer([&] {
    while (!done) {
      for (uint64_t page = 0; page < kPages; page++) memory.host(0)[page * kPageSize]++;
    }
  });
  for (int round = 0; round < 50; round++) UffdTracker tracker(memory);
  done = true;
  writer.join();
}

TEST_CASE("trackers: uffd-wp is refused for memory mapped from files, pagemap is not") {
  if (!refusal(kKinds[1]).empty() || !refusal(kKinds[2]).empty()) return;
  char path[] = "/var/tmp/kvmsnap-tracker-XXXXXX";
  int fd = ::mkstemp(path);
  REQUIRE(fd >= 0);
  ::unlink(path);
  REQUIRE(::ftruncate(fd, 16 * kPageSize) == 0);
  auto file = BackingFile::duplicate(fd);
  ::close(fd);
  auto image = std::make_shared<const Image>(
      std::vector<GpaRange>{{0, 16 * kPageSize}},
      std::vector<std::shared_ptr<const BackingFile>>{file},
      std::vector<Extent>{{.file = 0, .gpa = 0, .length = 16 * kPageSize, .offset = 0}});
  GuestMemory memory;
  memory.add({.slot = 0, .gpa = 0, .size = 16 * kPageSize}, image);
  PagemapTracker tracker(memory);
  memory.host(0)[3 * kPageSize] = 1;
  CHECK(harvest(tracker, memory) == Pages{{0, 3}});
  tracker.stop();
  // A tmpfs takes it: there it is the same kind of memory as a memfd.
  std::string code = code_of([&] { UffdTracker refused(memory); });
  CHECK((code.empty() || code == "ERR_SYSTEM"));
  // Whatever came of it, the memory can be written.
  memory.host(0)[4 * kPageSize] = 1;
}

}  // namespace kvmsnap
