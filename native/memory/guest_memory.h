// All RAM of a machine: its regions, and the only way to a guest address.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <span>
#include <vector>

#include "memory/flattener.h"
#include "memory/region.h"

namespace kvmsnap {

/// What is left to do of a freeze after which the guest goes on already. Whoever needs it done
/// first does it: the thread that is there for it, or who wants to map guest memory anew.
class LateFreeze {
 public:
  explicit LateFreeze(std::function<void()> work) : work_(std::move(work)) {}
  /// When it returns, it is done. Throws, each time, why it could not be: then there is no image.
  void finish();

 private:
  std::mutex mutex_;
  std::function<void()> work_;
  std::optional<Error> failure_;
};

struct FrozenMemory {
  std::shared_ptr<const Image> image;
  /// Not null: `image` is not to be looked at before that is finished.
  std::shared_ptr<LateFreeze> late;
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
  /// `from_files`: from the image's own files; else somebody else has its bytes.
  void add_empty(const RegionSpec& spec, const std::shared_ptr<const Image>& image,
                 bool from_files = true);
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

  /// Throws ERR_SNAPSHOT_CORRUPT when a file that it is mapped from was cut short.
  void require_whole() const;

  bool is_cold() const;
  /// See Region::loosen: all of it, a piece at a time, while vCPUs run. Nothing while mappings
  /// are held.
  void loosen();

  /// See Region::freeze. No vCPU may be running. With `late` its result may name what is left to do
  /// afterwards, soon.
  FrozenMemory freeze(bool late = false);
  /// Whether a freeze has something left to do.
  bool freezing() const;
  /// It has not any more. What maps memory anew does that first.
  void settle();
  /// While held it maps nothing anew by itself, nor empties page tables: others protect pages
  /// there, or count those written.
  void hold_mappings(bool held);
  /// Whether layers of its image are being flattened, which begins by itself after a freeze.
  bool flattening() const { return flattener_.is_busy(); }
  /// See Region::reset. Throws ERR_SNAPSHOT_FORMAT when `image` does not cover every region.
  std::vector<GpaRange> reset(const std::shared_ptr<const Image>& image);
  /// The same, whatever it takes: no page that was written stays.
  void map_anew(const std::shared_ptr<const Image>& image);

  /// See Region::take_host_writes.
  void take_host_writes(uint32_t slot, std::span<uint64_t> bitmap);
  void join_host_writes(uint32_t slot, std::span<uint64_t> bitmap) const;
  /// `first_page` is a multiple of 64.
  void forget_host_writes(uint32_t slot, uint64_t first_page, std::span<const uint64_t> bitmap);
  /// As if the host had written these pages.
  void mark_host_writes(uint32_t slot, uint64_t first_page, std::span<const uint64_t> bitmap);

 private:
  struct Piece {
    Region* region;
    uint64_t offset;
    uint64_t length;
  };
  std::vector<Piece> pieces(uint64_t gpa, uint64_t length) const;
  Region& find(uint32_t slot) const;
  void finish_late();
  /// With `failure` the freeze has not been; what fails on the way is put there.
  void end_late(std::optional<Error>& failure);
  void freeze_regions(FrozenMemory& memory, bool late);
  void flatten_if_deep();
  void flatten(uint32_t slot, const Image& image, const std::atomic<bool>& cancelled);
  void tidy(uint32_t slot, const std::atomic<bool>& cancelled);
  Region* find_or_null(uint32_t slot) const;
  std::shared_ptr<LateFreeze> late() const;

  mutable std::shared_mutex mutex_;
  std::vector<std::unique_ptr<Region>> regions_;
  bool held_ = false;
  /// What the last freeze has left.
  mutable std::mutex late_mutex_;
  std::shared_ptr<LateFreeze> late_;
  /// Last: its thread uses the others.
  Flattener flattener_;
};

}  // namespace kvmsnap
