// Who answers at an address: one bus for ports, one for MMIO.
#pragma once

#include <cstdint>
#include <mutex>
#include <variant>
#include <vector>

#include "devices/device.h"

namespace kvmsnap {

/// A range that JavaScript answers for. Unique in a machine.
using ClaimId = uint32_t;

struct DeviceTarget {
  BusDevice* device;
  uint16_t offset;
};
/// Nobody: reads give ones, writes are lost, as on an undriven bus.
using BusTarget = std::variant<std::monostate, DeviceTarget, ClaimId>;

/// Thread-safe.
class IoBus {
 public:
  /// Throws ERR_INVALID_ARGUMENT when the range is taken or empty. `device_offset` is what the
  /// device sees for the first address.
  void attach(uint64_t base, uint64_t length, BusDevice& device, uint16_t device_offset = 0);
  void claim(uint64_t base, uint64_t length, ClaimId id);
  /// False when there is no such claim.
  bool release(ClaimId id);
  void release_claims();
  BusTarget find(uint64_t address) const;

 private:
  struct Range {
    uint64_t base;
    uint64_t length;
    std::variant<BusDevice*, ClaimId> owner;
    uint16_t device_offset;
  };
  void insert(const Range& range);

  mutable std::mutex mutex_;
  /// Ordered by base.
  std::vector<Range> ranges_;
};

}  // namespace kvmsnap
