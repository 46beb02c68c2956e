#include "vmm/dirty_ring.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "kvm/error.h"

namespace kvmsnap {

namespace {

// ACQ_REL says what the plain capability leaves open: that entries are read with acquire and given
// back with release semantics, as is done here in any case.
int ring_capability(const VmFd& vm, int* most_bytes) {
  for (int capability : {KVM_CAP_DIRTY_LOG_RING_ACQ_REL, KVM_CAP_DIRTY_LOG_RING}) {
    *most_bytes = vm.check_extension(capability);
    if (*most_bytes > 0) return capability;
  }
  throw Error("ERR_KVM_CAPABILITY",
              "this KVM has no dirty ring (KVM_CAP_DIRTY_LOG_RING): make the machine without one, "
              "and track with `bitmap`");
}

}  // namespace

DirtyRings::DirtyRings(const VmFd& vm, uint32_t entries) : vm_(vm), entries_(entries) {
  int most_bytes = 0;
  int capability = ring_capability(vm, &most_bytes);
  uint64_t bytes = uint64_t{entries} * sizeof(kvm_dirty_gfn);
  // A ring takes whole pages. KVM keeps 64 entries in reserve, and with page-modification logging
  // of Intel's 512 more, so that the least ring differs from host to host.
  if (!std::has_single_bit(entries) || bytes < kPageSize ||
      bytes > static_cast<uint64_t>(most_bytes)) {
    throw Error("ERR_INVALID_ARGUMENT",
                "a dirty ring has a power of two of entries, from " +
                    std::to_string(kPageSize / sizeof(kvm_dirty_gfn)) + " to " +
                    std::to_string(static_cast<size_t>(most_bytes) / sizeof(kvm_dirty_gfn)) +
                    " on this host");
  }
  try {
    vm_.enable_capability(static_cast<uint32_t>(capability), bytes);
  } catch (const Error& error) {
    if (error.error_number() != EINVAL) throw;
    throw Error("ERR_INVALID_ARGUMENT", "KVM keeps more entries in reserve than a dirty ring of " +
                                            std::to_string(entries) + " has: take 1024 or more");
  }
}

void DirtyRings::add(const VcpuFd& vcpu) {
  std::lock_guard lock(mutex_);
  rings_.push_back({.entries = vcpu.map_dirty_ring(entries_ * sizeof(kvm_dirty_gfn)), .next = 0});
}

void DirtyRings::mark(uint32_t slot, uint64_t page) {
  for (DirtySlot& kept : kept_) {
    // A slot that was removed may have left entries.
    if (kept.slot == slot && page < kept.pages) return kept.mark(page);
  }
}

// An entry's life: empty, DIRTY by KVM, RESET by us, and empty again by KVM_RESET_DIRTY_RINGS,
// which protects the page first.
void DirtyRings::drain() {
  bool any = false;
  for (Ring& ring : rings_) {
    auto* entries = reinterpret_cast<kvm_dirty_gfn*>(ring.entries.get());
    for (;; ring.next++) {
      kvm_dirty_gfn& entry = entries[ring.next & (entries_ - 1)];
      if ((__atomic_load_n(&entry.flags, __ATOMIC_ACQUIRE) & KVM_DIRTY_GFN_F_DIRTY) == 0) break;
      // The upper half is the address space: 1 is that of system management mode.
      mark(entry.slot & 0xFFFF, entry.offset);
      __atomic_store_n(&entry.flags, KVM_DIRTY_GFN_F_RESET, __ATOMIC_RELEASE);
      any = true;
    }
  }
  if (any) vm_.reset_dirty_rings();
}

void DirtyRings::keep(std::vector<DirtySlot> slots) {
  std::lock_guard lock(mutex_);
  drain();
  kept_ = std::move(slots);
  lost_ = {};
}

void DirtyRings::drain_full() {
  auto started = std::chrono::steady_clock::now();
  std::lock_guard lock(mutex_);
  drain();
  lost_ += std::chrono::steady_clock::now() - started;
}

void DirtyRings::take(std::vector<DirtySlot>& slots) {
  std::lock_guard lock(mutex_);
  drain();
  join(slots, kept_);
  for (DirtySlot& slot : kept_) std::fill(slot.bitmap.begin(), slot.bitmap.end(), 0);
}

std::chrono::nanoseconds DirtyRings::take_lost() {
  std::lock_guard lock(mutex_);
  return std::exchange(lost_, {});
}

}  // namespace kvmsnap
