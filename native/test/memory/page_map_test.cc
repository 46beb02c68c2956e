#include "memory/page_map.h"

#include "memory/latencies.h"
#include "test/catch.h"
#include "test/memory/bytes.h"

namespace kvmsnap {

namespace {

constexpr uint64_t kHigh = uint64_t{1} << 32;
constexpr uint64_t kBlock = 16 * kPageSize;

std::vector<GpaRange> two_regions() {
  return {{kHigh, 100 * kPageSize}, {8 * kPageSize, 100 * kPageSize}};
}

bool same(const GpaRange& a, uint64_t first, uint64_t pages) {
  return a.gpa == first * kPageSize && a.size == pages * kPageSize;
}

}  // namespace

TEST_CASE("page map: a block is asked for once, and only what is missing of it") {
  std::vector<GpaRange> content = {{20 * kPageSize, 40 * kPageSize}, {kHigh, 4 * kPageSize}};
  PageMap map(two_regions(), content);
  CHECK(map.left() == 44);
  CHECK(map.state(19 * kPageSize) == PageMap::State::Here);
  CHECK(map.state(20 * kPageSize) == PageMap::State::Absent);
  CHECK(map.state(kHigh + 200 * kPageSize) == PageMap::State::Here);
  CHECK(map.state(0) == PageMap::State::Here);

  // The block of pages 16 to 31 begins before the content does.
  GpaRange first = map.claim_around(25 * kPageSize, kBlock);
  CHECK(same(first, 20, 12));
  CHECK(map.state(25 * kPageSize) == PageMap::State::Asked);
  CHECK(map.left() == 44);
  CHECK(same(map.claim_around(40 * kPageSize, kPageSize), 40, 1));
  // The rest of the next block, up to the page that is on its way.
  CHECK(same(map.claim_around(35 * kPageSize, kBlock), 32, 8));
  map.arrived(first);
  CHECK(map.left() == 32);
  CHECK(map.state(25 * kPageSize) == PageMap::State::Here);
  // Twice is once.
  map.arrived(first);
  CHECK(map.left() == 32);
  // Blocks end with their region.
  CHECK(same(map.claim_around(kHigh, kBlock), kHigh / kPageSize, 4));
}

TEST_CASE("page map: what is first in a range is claimed in pieces of a size") {
  std::vector<GpaRange> content = {{20 * kPageSize, 40 * kPageSize}, {kHigh, 4 * kPageSize}};
  PageMap map(two_regions(), content);
  GpaRange all = {0, UINT64_MAX / 2};
  CHECK(same(map.claim_first({0, 15 * kPageSize}, kBlock), 0, 0));
  CHECK(same(map.claim_first({30 * kPageSize, 10 * kPageSize}, kBlock), 30, 10));
  CHECK(same(map.claim_first(all, kBlock), 20, 10));
  CHECK(same(map.claim_first(all, kBlock), 40, 16));
  CHECK(same(map.claim_first(all, kBlock), 56, 4));
  CHECK(same(map.claim_first(all, kBlock), kHigh / kPageSize, 4));
  CHECK(map.claim_first(all, kBlock).size == 0);
  CHECK(map.first_missing(0, 20 * kPageSize) == 20 * kPageSize);
  CHECK(map.first_missing(0, kHigh) == 20 * kPageSize);
  map.arrived({20 * kPageSize, 40 * kPageSize});
  CHECK(map.first_missing(0, kHigh + 2 * kPageSize) == kHigh);
  map.arrived({kHigh, 4 * kPageSize});
  CHECK(map.left() == 0);
}

TEST_CASE("page map: gaps between what is to come end with their block or region") {
  std::vector<GpaRange> content = {{20 * kPageSize, kPageSize}};
  PageMap map(two_regions(), content);
  CHECK(same(map.rest_of_gap(16 * kPageSize, kBlock), 16, 4));
  CHECK(same(map.rest_of_gap(21 * kPageSize, kBlock), 21, 11));
  CHECK(same(map.rest_of_gap(107 * kPageSize, kBlock), 107, 1));
  CHECK(map.rest_of_gap(0, kBlock).size == 0);
}

TEST_CASE("page map: any order of claims brings every page once") {
  uint64_t seed = GENERATE(1, 2, 3, 4);
  CAPTURE(seed);
  Random random(seed);
  std::vector<GpaRange> content;
  uint64_t pages = 0;
  for (uint64_t page = 8; page < 108;) {
    uint64_t length = std::min(1 + below(random, 9), 108 - page);
    if (below(random, 2) == 0) {
      content.push_back({page * kPageSize, length * kPageSize});
      pages += length;
    }
    page += length;
  }
  PageMap map(two_regions(), content);
  REQUIRE(map.left() == pages);
  std::vector<GpaRange> claimed;
  uint64_t got = 0;
  while (map.left() > 0) {
    uint64_t gpa = (8 + below(random, 100)) * kPageSize;
    if (map.state(gpa) == PageMap::State::Absent) {
      claimed.push_back(map.claim_around(gpa, kPageSize << below(random, 5)));
      CHECK(gpa >= claimed.back().gpa);
      CHECK(gpa < claimed.back().end());
    } else if (GpaRange some = map.claim_first({gpa, kBlock}, kBlock); some.size > 0) {
      claimed.push_back(some);
    }
    if (claimed.empty() || below(random, 3) > 0) continue;
    size_t index = below(random, claimed.size());
    got += claimed[index].size / kPageSize;
    map.arrived(claimed[index]);
    claimed.erase(claimed.begin() + static_cast<ptrdiff_t>(index));
  }
  CHECK(got == pages);
}

TEST_CASE("latencies: percentiles are an eighth too much at most") {
  Latencies latencies;
  CHECK(latencies.percentile(0.5).count() == 0);
  for (int64_t i = 1; i <= 1000; i++) latencies.add(std::chrono::nanoseconds(i * 1000));
  CHECK(latencies.count() == 1000);
  for (double share : {0.001, 0.5, 0.99, 1.0}) {
    auto exact = static_cast<int64_t>(share * 1000) * 1000;
    CHECK(latencies.percentile(share).count() >= exact);
    CHECK(latencies.percentile(share).count() <= exact + exact / 8 + 1);
  }
  Latencies extremes;
  extremes.add(std::chrono::nanoseconds(-5));
  extremes.add(std::chrono::nanoseconds(INT64_MAX));
  CHECK(extremes.percentile(0.5).count() == 0);
  CHECK(extremes.percentile(1).count() == INT64_MAX);
}

}  // namespace kvmsnap
