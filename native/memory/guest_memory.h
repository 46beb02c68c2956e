// All RAM of a machine: its regions, and the only way to a guest address.
#pragma once

#include <cstdint>
#include <memory>
#include <shared_mutex>
#include <span>
#include <vector>

#include "memory/region.h"

namespace kvmsnap {

struct FrozenMemory {
  std::shared_ptr<const Image> image;
  /// See FrozenRegion.
  std::vector<std::shared_ptr<const Mapping>> views;
};

/// Thread-safe. Copies may run beside each other; changing what is mapped waits for them.
class GuestMemory {
 public:
  /// Throws ERR_INVALID_ARGUMENT for a bad or overlapping range, ERR_SNAPSHOT_FORMAT when `image`
  /// does not cover it.
  void add(const RegionSpec& spec, const std::shared_ptr<const Image>& image);
  /// The same for memory that is empty, to be filled with what `image` has for it.
  void add_empty(const RegionSpec& spec, const std::shared_ptr<const Image>& image);
  /// Throws ERR_INVALID_ARGUMENT when there is no such slot.
  void remove(uint32_t slot);
  void set_flags(uint32_t slot, uint32_t flags);
  /// Unmaps everything.
  void clear();

  /// Ordered by gpa.
  std::vector<RegionSpec> regions() const;
  RegionSpec region(uint32_t slot) const;
  /// Where KVM finds the slot's memory. It does not move until the slot is removed.
  uint8_t* host(uint32_t slot) const;

  /// Copies; a range may span adjacent regions. Throws ERR_GUEST_ADDRESS and copies nothing when it
  /// is not wholly RAM.
  void read(uint64_t gpa, std::span<uint8_t> bytes) const;
  void write(uint64_t gpa, std::span<const uint8_t> bytes);

  /// See Region::freeze. No vCPU may be running.
  FrozenMemory freeze();
  /// See Region::reset. Throws ERR_SNAPSHOT_FORMAT when `image` does not cover every region.
  void reset(const std::shared_ptr<const Image>& image);
  /// The same, whatever it takes: no page that was written stays.
  void map_anew(const std::shared_ptr<const Image>& image);

  /// See Region::take_host_writes.
  void take_host_writes(uint32_t slot, std::span<uint64_t> bitmap);
  void join_host_writes(uint32_t slot, std::span<uint64_t> bitmap) const;
  /// `first_page` is a multiple of 64.
  void forget_host_writes(uint32_t slot, uint64_t first_page, std::span<const uint64_t> bitmap);

 private:
  struct Piece {
    Region* region;
    uint64_t offset;
    uint64_t length;
  };
  std::vector<Piece> pieces(uint64_t gpa, uint64_t length) const;
  Region& find(uint32_t slot) const;

  mutable std::shared_mutex mutex_;
  std::vector<std::unique_ptr<Region>> regions_;
};

}  // namespace kvmsnap
