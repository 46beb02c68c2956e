#include "memory/latencies.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace kvmsnap {

namespace {

// 0 to 7 have a bucket each; from there each power of two has eight.
size_t bucket_of(uint64_t value) {
  if (value < 8) return value;
  unsigned power = static_cast<unsigned>(std::bit_width(value)) - 1;
  return size_t{power - 2} * 8 + (value >> (power - 3) & 7);
}

uint64_t last_of(size_t bucket) {
  if (bucket < 8) return bucket;
  unsigned power = static_cast<unsigned>(bucket / 8) + 2;
  return (uint64_t{8 + bucket % 8 + 1} << (power - 3)) - 1;
}

}  // namespace

void Latencies::add(std::chrono::nanoseconds time) {
  buckets_[bucket_of(static_cast<uint64_t>(std::max<int64_t>(time.count(), 0)))]++;
  count_++;
}

std::chrono::nanoseconds Latencies::percentile(double share) const {
  uint64_t wanted = static_cast<uint64_t>(std::ceil(share * static_cast<double>(count_)));
  uint64_t seen = 0;
  for (size_t bucket = 0; bucket < buckets_.size(); bucket++) {
    seen += buckets_[bucket];
    if (seen > 0 && seen >= wanted) {
      return std::chrono::nanoseconds(static_cast<int64_t>(last_of(bucket)));
    }
  }
  return {};
}

}  // namespace kvmsnap
