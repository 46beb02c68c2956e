#include "memory/host_runs.h"

#include <random>
#include <vector>

#include "test/catch.h"

namespace kvmsnap {

namespace {

constexpr uint64_t kPage = 4096, kPages = 64;

std::vector<HostRun> runs_of(const std::vector<bool>& pages) {
  std::vector<HostRun> runs;
  for (uint64_t page = 0; page < pages.size(); page++) {
    if (pages[page]) append_run(runs, page * kPage, (page + 1) * kPage);
  }
  return runs;
}

}  // namespace

TEST_CASE("host runs: differences and unions are those of their pages") {
  std::mt19937_64 random(1);
  for (int round = 0; round < 2000; round++) {
    std::vector<bool> some(kPages), others(kPages), difference(kPages), both(kPages);
    for (uint64_t page = 0; page < kPages; page++) {
      some[page] = random() % 2 == 0;
      others[page] = random() % 3 == 0;
      difference[page] = some[page] && !others[page];
      both[page] = difference[page] || others[page];
    }
    auto left = without(runs_of(some), runs_of(others));
    REQUIRE(same_pages(left, runs_of(difference)));
    REQUIRE(same_pages(joined(left, runs_of(others)), runs_of(both)));
    REQUIRE(same_pages(runs_of(some), runs_of(others)) == (some == others));
  }
}

}  // namespace kvmsnap
