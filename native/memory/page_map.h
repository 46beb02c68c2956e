// Which pages of guest memory are still to come, and which of those are on their way. No threads,
// no memory: only the account.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "memory/image.h"
#include "memory/region_spec.h"

namespace kvmsnap {

class PageMap {
 public:
  /// `content`: what is to come, whole pages inside `regions`, each page once.
  PageMap(std::span<const GpaRange> regions, std::span<const GpaRange> content);

  /// Pages that are to come, on their way or not.
  uint64_t left() const { return left_; }

  enum class State : uint8_t {
    /// To come, and nobody asked for it.
    Absent,
    /// On its way.
    Asked,
    /// Here; or one that never had to come, or is no RAM.
    Here,
  };
  State state(uint64_t gpa) const;
  /// The first page from `gpa` on, below `end`, that is to come; `end` when there is none.
  uint64_t first_missing(uint64_t gpa, uint64_t end) const;

  /// Marks as asked for, and gives, the absent pages around `gpa`, which is one, in its block of
  /// `block` bytes.
  GpaRange claim_around(uint64_t gpa, uint64_t block);
  /// The same for the first absent pages of `within`, at most `most` bytes of them. Empty when
  /// there is none.
  GpaRange claim_first(const GpaRange& within, uint64_t most);
  /// The pages from `gpa`, which is here, to the next that is to come, inside its block.
  GpaRange rest_of_gap(uint64_t gpa, uint64_t block) const;
  /// What was claimed is here.
  void arrived(const GpaRange& range);

 private:
  struct Slot {
    GpaRange range;
    std::vector<bool> absent;
    std::vector<bool> asked;
    uint64_t pages() const { return range.size / kPageSize; }
  };
  const Slot* find(uint64_t gpa) const;
  Slot* find(uint64_t gpa) { return const_cast<Slot*>(std::as_const(*this).find(gpa)); }
  static GpaRange claim(Slot& slot, uint64_t first, uint64_t end);

  /// Ordered by gpa.
  std::vector<Slot> slots_;
  uint64_t left_ = 0;
};

/// Appends `range` to runs, joined with the last where it goes on from there.
void append_range(std::vector<GpaRange>& runs, const GpaRange& range);

}  // namespace kvmsnap
