// Sets of pages by host address, as ordered runs that neither overlap nor touch.
#pragma once

#include <cstdint>
#include <vector>

namespace kvmsnap {

/// A run of host addresses, page-aligned.
struct HostRun {
  uint64_t start = 0;
  uint64_t end = 0;
};

/// Adds a run to an ordered list, joined with the last where they touch.
void append_run(std::vector<HostRun>& runs, uint64_t start, uint64_t end);
bool same_pages(const std::vector<HostRun>& some, const std::vector<HostRun>& others);
/// The pages of `some` that are not among `others`.
std::vector<HostRun> without(const std::vector<HostRun>& some, const std::vector<HostRun>& others);
/// The pages of both, which have none in common.
std::vector<HostRun> joined(const std::vector<HostRun>& some, const std::vector<HostRun>& others);

}  // namespace kvmsnap
