// The pager on plain memory: threads touch it as vCPUs do. Touches that may find no access go by
// process_vm_readv, which gets EFAULT where a CPU would be stopped by a signal.
#include "memory/pager.h"

#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <deque>
#include <functional>
#include <thread>

#include "memory/guest_memory.h"
#include "test/catch.h"
#include "test/memory/bytes.h"

namespace kvmsnap {

namespace {

constexpr uint64_t kPages = 300;
constexpr uint64_t kHigh = uint64_t{1} << 32;

struct Told final : PagerEvents {
  void paging_failed(const Error& error) override {
    std::lock_guard lock(mutex);
    failures.push_back(error);
  }
  void paging_ended(bool readable) override {
    std::lock_guard lock(mutex);
    ends.push_back(readable);
  }
  std::vector<bool> told_ends() {
    std::lock_guard lock(mutex);
    return ends;
  }
  std::vector<std::string> codes() {
    std::lock_guard lock(mutex);
    std::vector<std::string> codes;
    for (const Error& error : failures) codes.push_back(error.code());
    return codes;
  }
  std::mutex mutex;
  std::vector<Error> failures;
  std::vector<bool> ends;
};

// Keeps requests until the test answers them.
class HeldSource final : public PageSource {
 public:
  bool answers_later() const override { return true; }
  void request(uint32_t id, const GpaRange& range, PageReceiver&) override {
    std::lock_guard lock(mutex_);
    requests_.emplace_back(id, range);
  }
  // Waits for `count` requests and takes them.
  std::vector<std::pair<uint32_t, GpaRange>> take(size_t count) {
    for (;;) {
      {
        std::lock_guard lock(mutex_);
        if (requests_.size() >= count) {
          std::vector<std::pair<uint32_t, GpaRange>> taken(requests_.begin(), requests_.end());
          requests_.clear();
          return taken;
        }
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }

 private:
  std::mutex mutex_;
  std::deque<std::pair<uint32_t, GpaRange>> requests_;
};

// Two regions with pages that differ; the last pages of each have no content.
struct Fixture {
  explicit Fixture(uint64_t seed = 1) {
    Random random(seed);
    bytes = random_pages(random, kPages);
    file = file_of(bytes);
    image = std::make_shared<const Image>(
        std::vector<GpaRange>{{0, kPages * kPageSize}, {kHigh, kPages * kPageSize}},
        std::vector<std::shared_ptr<const BackingFile>>{file},
        std::vector<Extent>{
            {.file = 0, .gpa = 0, .length = 200 * kPageSize, .offset = 0},
            {.file = 0, .gpa = kHigh, .length = 100 * kPageSize, .offset = 200 * kPageSize}});
    memory.add_empty({.slot = 0, .gpa = 0, .size = kPages * kPageSize}, image);
    memory.add_empty({.slot = 1, .gpa = kHigh, .size = kPages * kPageSize}, image);
  }

  std::unique_ptr<Pager> pager(PagingOptions options = {}) {
    if (options.source == nullptr) options.source = std::make_shared<FilePageSource>(image);
    std::vector<Pager::Memory> parts;
    for (uint32_t slot : {0u, 1u}) {
      RegionSpec spec = memory.region(slot);
      parts.push_back({{spec.gpa, spec.size}, memory.host(slot)});
    }
    std::vector<GpaRange> content;
    for (const Extent& extent : image->extents()) content.push_back({extent.gpa, extent.length});
    return std::make_unique<Pager>(std::move(parts), content, std::move(options), told);
  }

  std::vector<uint8_t> expected(uint64_t gpa) const {
    std::vector<uint8_t> page(kPageSize);
    image->read(gpa, page);
    return page;
  }
  uint8_t* at(uint64_t gpa) const {
    return gpa >= kHigh ? memory.host(1) + (gpa - kHigh) : memory.host(0) + gpa;
  }
  bool right(uint64_t gpa) const {
    return std::memcmp(at(gpa), expected(gpa).data(), kPageSize) == 0;
  }
  void answer(Pager& pager, const std::pair<uint32_t, GpaRange>& request) const {
    std::vector<uint8_t> content(request.second.size);
    image->read(request.second.gpa, content);
    pager.receiver().answer(request.first, content);
  }

  std::vector<uint8_t> bytes;
  std::shared_ptr<BackingFile> file;
  std::shared_ptr<const Image> image;
  GuestMemory memory;
  Told told;
};

// 0, or the errno of a touch.
int touch(const uint8_t* address) {
  uint8_t byte = 0;
  iovec here = {&byte, 1};
  iovec there = {const_cast<uint8_t*>(address), 1};
  return ::process_vm_readv(::getpid(), &here, 1, &there, 1, 0) == 1 ? 0 : errno;
}

bool soon(const std::function<bool()>& condition) {
  for (int i = 0; i < 5000; i++) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return false;
}

const std::atomic<bool> kNever = false;

}  // namespace

TEST_CASE("pager: every page that is touched is the image's, whoever touches it first") {
  uint64_t block = GENERATE(uint64_t{4096}, uint64_t{65536});
  Fixture fixture;
  auto pager = fixture.pager({.source = nullptr, .fault_bytes = block, .prefetch = {}});
  std::atomic<int> wrong = 0;
  std::vector<std::thread> threads;
  for (uint64_t seed : {7, 8, 9}) {
    threads.emplace_back([&, seed] {
      Random random(seed);
      for (int i = 0; i < 400; i++) {
        uint64_t gpa = below(random, kPages) * kPageSize + (below(random, 2) == 0 ? 0 : kHigh);
        if (!fixture.right(gpa)) wrong++;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(wrong == 0);
  for (uint64_t page = 0; page < kPages; page++) {
    CHECK(fixture.right(page * kPageSize));
    CHECK(fixture.right(kHigh + page * kPageSize));
  }
  CHECK(soon([&] { return !pager->active(); }));
  PagingFacts facts = pager->facts();
  CHECK(facts.faulted == 300);
  CHECK(facts.left == 0);
  CHECK(facts.p99 >= facts.p50);
  CHECK(facts.p50.count() > 0);
  CHECK(fixture.told.codes().empty());
  // Each page once.
  uint64_t touched = 0;
  for (const GpaRange& run : pager->touched()) touched += run.size / kPageSize;
  CHECK(touched == 300);
  // It is memory like any other: it can be frozen, and comes from that image.
  FrozenMemory frozen = fixture.memory.freeze();
  CHECK(frozen.image->lineage() == fixture.image->lineage());
  std::vector<uint8_t> page(kPageSize);
  frozen.image->read(kHigh + 5 * kPageSize, page);
  CHECK(page == fixture.expected(kHigh + 5 * kPageSize));
}

TEST_CASE("pager: the order of first touch is kept") {
  Fixture fixture;
  auto pager = fixture.pager({.source = nullptr, .fault_bytes = kPageSize, .prefetch = {}});
  for (uint64_t page : {50, 51, 52, 3, 51, 120, 119})
    CHECK(touch(fixture.at(page * kPageSize)) == 0);
  // Zeros are no content.
  CHECK(touch(fixture.at(250 * kPageSize)) == 0);
  CHECK(touch(fixture.at(kHigh)) == 0);
  std::vector<std::pair<uint64_t, uint64_t>> runs;
  for (const GpaRange& run : pager->touched()) runs.emplace_back(run.gpa / kPageSize, run.size);
  std::vector<std::pair<uint64_t, uint64_t>> expected = {{50, 3 * kPageSize},
                                                         {3, kPageSize},
                                                         {120, kPageSize},
                                                         {119, kPageSize},
                                                         {kHigh / kPageSize, kPageSize}};
  CHECK(runs == expected);
}

TEST_CASE("pager: what is prefetched or fetched does not fault") {
  Fixture fixture;
  auto pager = fixture.pager({.source = nullptr,
                              .fault_bytes = kPageSize,
                              .prefetch = {{kHigh, 10 * kPageSize}, {0, 20 * kPageSize}}});
  CHECK(soon([&] { return pager->facts().prefetched == 30; }));
  GpaRange range = {100 * kPageSize, 5 * kPageSize};
  pager->fetch({&range, 1}, kNever);
  pager->require(150 * kPageSize + 1, kPageSize);
  for (uint64_t page : {0, 19, 100, 104, 150, 151}) CHECK(fixture.right(page * kPageSize));
  CHECK(fixture.right(kHigh + 9 * kPageSize));
  CHECK(pager->facts().faults == 0);
  CHECK(pager->facts().fetched == 7);
  pager->fetch_all(kNever);
  CHECK_FALSE(pager->active());
  for (uint64_t page = 0; page < kPages; page++) CHECK(fixture.right(page * kPageSize));
  CHECK(pager->facts().faults == 0);
  CHECK(soon([&] { return fixture.told.told_ends() == std::vector<bool>{true}; }));
}

TEST_CASE("pager: faults on one block are one request, on others more, in any order") {
  Fixture fixture;
  auto source = std::make_shared<HeldSource>();
  auto pager = fixture.pager({.source = source, .fault_bytes = 16 * kPageSize, .prefetch = {}});
  std::vector<std::thread> threads;
  std::atomic<int> right = 0;
  for (uint64_t page : {1, 2, 2, 40, 80}) {
    threads.emplace_back([&, page] { right += fixture.right(page * kPageSize) ? 1 : 0; });
  }
  auto requests = source->take(3);
  CHECK(requests.size() == 3);
  CHECK(soon([&] { return pager->facts().faults == 5; }));
  // The host's own thread must not wait for what it alone can bring.
  CHECK(code_of([&] { pager->require(40 * kPageSize, 1); }) == "ERR_STATE");
  CHECK(right == 0);
  for (auto request = requests.rbegin(); request != requests.rend(); ++request) {
    fixture.answer(*pager, *request);
    // A second answer is dropped, and so is one that nobody asked for.
    fixture.answer(*pager, *request);
    pager->receiver().answer(12345, {});
  }
  for (auto& thread : threads) thread.join();
  CHECK(right == 5);
  pager->require(40 * kPageSize, 1);
  CHECK(pager->facts().faulted == 48);
  CHECK(fixture.told.codes().empty());
}

TEST_CASE("pager: a source that fails turns away who waits, and keeps what came") {
  int how = GENERATE(0, 1, 2);
  CAPTURE(how);
  Fixture fixture;
  auto source = std::make_shared<HeldSource>();
  auto pager = fixture.pager({.source = source, .fault_bytes = kPageSize, .prefetch = {}});
  std::thread first([&] { CHECK(touch(fixture.at(0)) == 0); });
  fixture.answer(*pager, source->take(1)[0]);
  first.join();
  std::vector<std::thread> waiting;
  std::atomic<int> turned_away = 0;
  for (uint64_t page : {10, 10, 20}) {
    waiting.emplace_back([&, page] {
      if (touch(fixture.at(page * kPageSize)) == EFAULT) turned_away++;
    });
  }
  GpaRange range = {30 * kPageSize, kPageSize};
  std::string fetched;
  waiting.emplace_back([&] { fetched = code_of([&] { pager->fetch({&range, 1}, kNever); }); });
  auto requests = source->take(3);
  CHECK(soon([&] { return pager->facts().faults == 4; }));
  uint32_t id = requests[0].first;
  std::vector<uint8_t> bytes(kPageSize + 1);
  if (how == 0) pager->receiver().refuse(id, Error("ERR_ANY", "no such page"));
  if (how == 1) pager->receiver().answer(id, {bytes.data(), kPageSize - 1});
  if (how == 2) pager->receiver().answer(id, bytes);
  for (auto& thread : waiting) thread.join();
  CHECK(turned_away == 3);
  CHECK(fetched == "ERR_PAGE_SOURCE");
  CHECK(soon([&] { return !pager->active(); }));
  CHECK(fixture.told.codes() == std::vector<std::string>{"ERR_PAGE_SOURCE"});
  CHECK(touch(fixture.at(100 * kPageSize)) == EFAULT);
  CHECK(code_of([&] { pager->require(0, 1); }) == "ERR_PAGE_SOURCE");
  pager->reopen();
  pager->require(0, 1);
  CHECK(fixture.right(0));
  CHECK(code_of([&] { pager->require(10 * kPageSize, 1); }) == "ERR_PAGE_SOURCE");
  // Answers that come now change nothing.
  fixture.answer(*pager, requests[1]);
  CHECK(fixture.told.codes().size() == 1);
}

TEST_CASE("pager: a file that was cut short is a failure, not a signal") {
  Fixture fixture;
  // A file that can be cut, unlike a memfd of ours.
  char name[] = "/tmp/kvmsnap-pager-XXXXXX";
  UniqueFd cut(::mkstemp(name));
  REQUIRE(cut);
  ::unlink(name);
  write_all(cut.get(), fixture.bytes.data(), fixture.bytes.size(), 0);
  auto image = std::make_shared<const Image>(
      fixture.image->regions(),
      std::vector<std::shared_ptr<const BackingFile>>{BackingFile::duplicate(cut.get())},
      fixture.image->extents());
  auto pager = fixture.pager({.source = std::make_shared<FilePageSource>(image),
                              .fault_bytes = kPageSize,
                              .prefetch = {}});
  CHECK(touch(fixture.at(0)) == 0);
  REQUIRE(::ftruncate(cut.get(), 10 * kPageSize) == 0);
  CHECK(touch(fixture.at(9 * kPageSize)) == 0);
  CHECK(touch(fixture.at(10 * kPageSize)) == EFAULT);
  CHECK(fixture.told.codes() == std::vector<std::string>{"ERR_PAGE_SOURCE"});
}

TEST_CASE("pager: stopping turns away who waits, and tells nobody") {
  bool fetching = GENERATE(false, true);
  Fixture fixture;
  auto source = std::make_shared<HeldSource>();
  auto pager = fixture.pager(
      {.source = source, .fault_bytes = kPageSize, .prefetch = {{kHigh, 100 * kPageSize}}});
  source->take(1);
  std::atomic<int> turned_away = 0;
  std::thread waiting([&] { turned_away += touch(fixture.at(0)) == EFAULT ? 1 : 0; });
  std::string fetched;
  std::thread fetch([&] {
    if (fetching) fetched = code_of([&] { pager->fetch_all(kNever); });
  });
  CHECK(soon([&] { return pager->facts().faults == 1; }));
  pager->stop(Error("ERR_CLOSED", "closed"));
  pager->stop(Error("ERR_CLOSED", "closed again"));
  waiting.join();
  fetch.join();
  CHECK(turned_away == 1);
  if (fetching) CHECK(fetched == "ERR_CLOSED");
  CHECK(fixture.told.codes().empty());
  CHECK(fixture.told.told_ends() == std::vector<bool>{false});
}

TEST_CASE("pager: a fetch that is cancelled lets go, and harms nothing") {
  Fixture fixture;
  auto source = std::make_shared<HeldSource>();
  auto pager = fixture.pager({.source = source, .fault_bytes = kPageSize, .prefetch = {}});
  std::atomic<bool> cancelled = false;
  std::string fetched;
  std::thread fetch([&] { fetched = code_of([&] { pager->fetch_all(cancelled); }); });
  auto requests = source->take(1);
  cancelled = true;
  fetch.join();
  CHECK(fetched == "ERR_ABORTED");
  for (const auto& request : requests) fixture.answer(*pager, request);
  CHECK(fixture.right(0));
  CHECK(fixture.told.codes().empty());
}

TEST_CASE("pager: memory without content has nothing to wait for") {
  Fixture fixture;
  fixture.image = std::make_shared<const Image>(fixture.image->regions(),
                                                std::vector<std::shared_ptr<const BackingFile>>{},
                                                std::vector<Extent>{});
  auto pager = fixture.pager();
  pager->fetch_all(kNever);
  CHECK_FALSE(pager->active());
  CHECK(touch(fixture.at(0)) == 0);
}

TEST_CASE("pager: very many pieces of content are watched as one") {
  Fixture fixture;
  constexpr uint64_t kPieces = 1500;
  GuestMemory memory;
  std::vector<Extent> extents;
  for (uint64_t i = 0; i < kPieces; i++) {
    extents.push_back(
        {.file = 0, .gpa = i * 2 * kGranule, .length = kPageSize, .offset = i % 100 * kPageSize});
  }
  fixture.image = std::make_shared<const Image>(
      std::vector<GpaRange>{{0, kPieces * 2 * kGranule}},
      std::vector<std::shared_ptr<const BackingFile>>{fixture.file}, std::move(extents));
  memory.add_empty({.slot = 0, .gpa = 0, .size = kPieces * 2 * kGranule}, fixture.image);
  std::vector<GpaRange> content;
  for (const Extent& extent : fixture.image->extents()) {
    content.push_back({extent.gpa, extent.length});
  }
  PagingOptions options;
  options.source = std::make_shared<FilePageSource>(fixture.image);
  Pager pager({{{0, kPieces * 2 * kGranule}, memory.host(0)}}, content, options, fixture.told);
  for (uint64_t i : {uint64_t{0}, uint64_t{700}, kPieces - 1}) {
    uint64_t gpa = i * 2 * kGranule;
    CHECK(std::memcmp(memory.host(0) + gpa, fixture.expected(gpa).data(), kPageSize) == 0);
    // A gap, whose zeros are asked for, too.
    CHECK(memory.host(0)[gpa + kGranule] == 0);
  }
  CHECK(pager.facts().faulted == 3);
}

}  // namespace kvmsnap
