// Where a region of guest RAM lies, and the checks that make its arithmetic safe.
#pragma once

#include <cstdint>
#include <cstdio>
#include <span>
#include <string>

#include "kvm/error.h"

namespace kvmsnap {

constexpr uint64_t kPageSize = 4096;
/// Guest physical addresses have at most 52 bits (AMD APM volume 2, 5.3; Intel SDM volume
/// 3, 4.1.4), so that sums of two checked values cannot overflow.
constexpr uint64_t kGpaLimit = uint64_t{1} << 52;

inline std::string hex(uint64_t value) {
  char text[19];
  std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));
  return text;
}

/// One region of guest RAM: a KVM memory slot.
struct RegionSpec {
  uint32_t slot = 0;
  uint64_t gpa = 0;
  /// Bytes.
  uint64_t size = 0;
  /// KVM_MEM_LOG_DIRTY_PAGES | KVM_MEM_READONLY.
  uint32_t flags = 0;

  uint64_t end() const { return gpa + size; }
};

inline bool page_aligned(uint64_t value) { return value % kPageSize == 0; }

/// Throws ERR_INVALID_ARGUMENT unless the range is page-aligned, not empty and below kGpaLimit.
inline void check_range(uint64_t gpa, uint64_t size) {
  if (!page_aligned(gpa) || !page_aligned(size) || size == 0 || gpa >= kGpaLimit ||
      size > kGpaLimit - gpa) {
    throw Error("ERR_INVALID_ARGUMENT",
                "a memory range must be page-aligned, not empty and below 2^52: got " + hex(gpa) +
                    " + " + hex(size));
  }
}

}  // namespace kvmsnap
