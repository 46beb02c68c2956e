#include "vmm/io_bus.h"

#include <algorithm>

#include "kvm/error.h"
#include "memory/region_spec.h"

namespace kvmsnap {

void IoBus::attach(uint64_t base, uint64_t length, BusDevice& device, uint16_t device_offset) {
  insert({base, length, &device, device_offset});
}

void IoBus::claim(uint64_t base, uint64_t length, ClaimId id) { insert({base, length, id, 0}); }

void IoBus::insert(const Range& range) {
  if (range.length == 0 || range.base + range.length < range.base) {
    throw Error("ERR_INVALID_ARGUMENT", "an I/O range must have at least one address");
  }
  std::lock_guard lock(mutex_);
  auto next = std::upper_bound(ranges_.begin(), ranges_.end(), range.base,
                               [](uint64_t base, const Range& other) { return base < other.base; });
  bool overlaps =
      (next != ranges_.end() && next->base - range.base < range.length) ||
      (next != ranges_.begin() && range.base - std::prev(next)->base < std::prev(next)->length);
  if (overlaps) {
    throw Error("ERR_INVALID_ARGUMENT", "the I/O range at " + hex(range.base) +
                                            " is taken: leave the device there out, or choose "
                                            "another address");
  }
  ranges_.insert(next, range);
}

bool IoBus::release(ClaimId id) {
  std::lock_guard lock(mutex_);
  return std::erase_if(ranges_, [&](const Range& range) {
           const ClaimId* owner = std::get_if<ClaimId>(&range.owner);
           return owner != nullptr && *owner == id;
         }) > 0;
}

void IoBus::release_claims() {
  std::lock_guard lock(mutex_);
  std::erase_if(ranges_,
                [](const Range& range) { return std::holds_alternative<ClaimId>(range.owner); });
}

BusTarget IoBus::find(uint64_t address) const {
  std::lock_guard lock(mutex_);
  auto next =
      std::upper_bound(ranges_.begin(), ranges_.end(), address,
                       [](uint64_t value, const Range& range) { return value < range.base; });
  if (next == ranges_.begin()) return {};
  const Range& range = *std::prev(next);
  if (address - range.base >= range.length) return {};
  if (const ClaimId* id = std::get_if<ClaimId>(&range.owner)) return *id;
  return DeviceTarget{std::get<BusDevice*>(range.owner),
                      static_cast<uint16_t>(range.device_offset + (address - range.base))};
}

}  // namespace kvmsnap
