#include "vmm/memory_slots.h"

#include "kvm/error.h"

namespace kvmsnap {

void MemorySlots::map(const RegionSpec& spec) const {
  vm_.set_user_memory_region(
      {.slot = spec.slot,
       .flags = spec.flags,
       .guest_phys_addr = spec.gpa,
       .memory_size = spec.size,
       .userspace_addr = reinterpret_cast<uintptr_t>(memory_.host(spec.slot))});
}

void MemorySlots::add(const RegionSpec& spec) {
  memory_.add(spec, nullptr);
  try {
    map(spec);
  } catch (...) {
    memory_.remove(spec.slot);
    throw;
  }
}

void MemorySlots::remove(uint32_t slot) {
  RegionSpec spec = memory_.region(slot);
  vm_.set_user_memory_region({.slot = slot, .guest_phys_addr = spec.gpa, .memory_size = 0});
  memory_.remove(slot);
}

void MemorySlots::set_flags(uint32_t slot, uint32_t flags) {
  RegionSpec spec = memory_.region(slot);
  spec.flags = flags;
  map(spec);
  memory_.set_flags(slot, flags);
}

void MemorySlots::set_manual(bool manual) {
  vm_.enable_capability(KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
                        manual ? KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE : 0);
  manual_ = manual;
}

std::vector<uint64_t> MemorySlots::read_log(uint32_t slot) {
  RegionSpec spec = memory_.region(slot);
  std::vector<uint64_t> bitmap((spec.size / kPageSize + 63) / 64);
  vm_.dirty_log(slot, bitmap);
  if (manual_) {
    memory_.join_host_writes(slot, bitmap);
  } else {
    memory_.take_host_writes(slot, bitmap);
  }
  return bitmap;
}

void MemorySlots::clear_log(uint32_t slot, uint64_t first_page, uint32_t pages,
                            std::span<uint64_t> bitmap) {
  if (!manual_) {
    throw Error("ERR_STATE",
                "reading the dirty log of this machine clears it: to clear it in chunks make the "
                "machine with manualDirtyLog");
  }
  RegionSpec spec = memory_.region(slot);
  uint64_t total = spec.size / kPageSize;
  // Documentation/virt/kvm/api.rst 4.117: whole words, but at the end of the slot.
  bool ends_well = pages % 64 == 0 || first_page + pages == total;
  if (first_page % 64 != 0 || !ends_well || first_page > total || pages > total - first_page ||
      bitmap.size() * 64 < pages) {
    throw Error("ERR_INVALID_ARGUMENT",
                "the range to clear starts and ends at a multiple of 64 pages, or at the slot's "
                "end, and comes with a bit for each page");
  }
  // Bits beyond the range are no part of it, though they are in its last word.
  bitmap = bitmap.first((pages + 63) / 64);
  if (pages % 64 != 0) bitmap.back() &= (uint64_t{1} << pages % 64) - 1;
  // The host's first: a page that it writes meanwhile is named again, not forgotten.
  memory_.forget_host_writes(slot, first_page, bitmap);
  try {
    vm_.clear_dirty_log(slot, first_page, pages, bitmap);
  } catch (...) {
    // Some of them the host may have written: all are named again.
    memory_.mark_host_writes(slot, first_page, bitmap);
    throw;
  }
}

}  // namespace kvmsnap
