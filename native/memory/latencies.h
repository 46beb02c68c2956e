// How long many like things took: counts in buckets of an eighth of a power of two.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>

namespace kvmsnap {

class Latencies {
 public:
  void add(std::chrono::nanoseconds time);
  uint64_t count() const { return count_; }
  /// The time that a share of 0 to 1 of all took at most, rounded up by an eighth at most; 0 for
  /// none.
  std::chrono::nanoseconds percentile(double share) const;

 private:
  std::array<uint64_t, size_t{64} * 8> buckets_{};
  uint64_t count_ = 0;
};

}  // namespace kvmsnap
