#include "memory/host_runs.h"

#include <algorithm>
#include <iterator>

namespace kvmsnap {

void append_run(std::vector<HostRun>& runs, uint64_t start, uint64_t end) {
  if (!runs.empty() && runs.back().end == start) {
    runs.back().end = end;
  } else {
    runs.push_back({start, end});
  }
}

bool same_pages(const std::vector<HostRun>& some, const std::vector<HostRun>& others) {
  return std::equal(
      some.begin(), some.end(), others.begin(), others.end(),
      [](const HostRun& a, const HostRun& b) { return a.start == b.start && a.end == b.end; });
}

std::vector<HostRun> without(const std::vector<HostRun>& some, const std::vector<HostRun>& others) {
  std::vector<HostRun> result;
  auto other = others.begin();
  for (HostRun run : some) {
    while (other != others.end() && other->end <= run.start) ++other;
    for (auto cut = other; cut != others.end() && cut->start < run.end; ++cut) {
      if (cut->start > run.start) append_run(result, run.start, cut->start);
      run.start = std::min(run.end, cut->end);
    }
    if (run.start < run.end) append_run(result, run.start, run.end);
  }
  return result;
}

std::vector<HostRun> joined(const std::vector<HostRun>& some, const std::vector<HostRun>& others) {
  std::vector<HostRun> all;
  all.reserve(some.size() + others.size());
  std::merge(some.begin(), some.end(), others.begin(), others.end(), std::back_inserter(all),
             [](const HostRun& a, const HostRun& b) { return a.start < b.start; });
  std::vector<HostRun> result;
  for (const HostRun& run : all) append_run(result, run.start, run.end);
  return result;
}

}  // namespace kvmsnap
