#include "vmm/dirty_ring.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "kvm/error.h"

namespace kvmsnap {

namespace {

// No slot has that number: KVM empties such an entry, and protects no page.
constexpr uint32_t kNoSlot = 0xFFFF;

// KVM stops a vCPU at `entries` less its reserve of at most 64 + 512, and a ring has twice that or,
// with a reserve of 64, at least 256: an eighth is less than what it takes to be full.
constexpr uint32_t kSkippedPart = 8;

// What a guest writes in seconds: KVM looks at the ring at every tick of the host's clock at least.
constexpr uint64_t kMostLost = uint64_t{1} << 26;

// As many as a signal can explain, and more.
constexpr int kMostVainResets = 1000;

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

kvm_dirty_gfn& DirtyRings::entry(Ring& ring, uint32_t number) const {
  return reinterpret_cast<kvm_dirty_gfn*>(ring.entries.get())[number & (entries_ - 1)];
}

bool DirtyRings::is_dirty(Ring& ring, uint32_t number) const {
  uint32_t flags = __atomic_load_n(&entry(ring, number).flags, __ATOMIC_ACQUIRE);
  return (flags & KVM_DIRTY_GFN_F_DIRTY) != 0;
}

// They follow each other, and those of a run that goes around the end begin behind a gap.
std::optional<uint32_t> DirtyRings::first_written(Ring& ring) const {
  bool before = is_dirty(ring, ring.next - 1);
  for (uint32_t beyond = 0; beyond < entries_; beyond++) {
    bool dirty = is_dirty(ring, ring.next + beyond);
    if (dirty && !before) return ring.next + beyond;
    before = dirty;
  }
  return before ? std::optional(ring.next) : std::nullopt;
}

// An entry's life: empty, DIRTY by KVM, RESET by us, and empty again by KVM_RESET_DIRTY_RINGS,
// which protects the page first.
void DirtyRings::give_back(Ring& ring, uint32_t end) {
  for (; ring.next != end; ring.next++) {
    kvm_dirty_gfn& taken = entry(ring, ring.next);
    if (is_dirty(ring, ring.next)) {
      // The upper half is the address space: 1 is that of system management mode.
      mark(taken.slot & 0xFFFF, taken.offset);
    } else {
      taken.slot = kNoSlot;
    }
    __atomic_store_n(&taken.flags, KVM_DIRTY_GFN_F_RESET, __ATOMIC_RELEASE);
    given_back_++;
  }
}

void DirtyRings::drain(Ring& ring) {
  uint32_t first = ring.next;
  if (ring.gap) {
    std::optional<uint32_t> written = first_written(ring);
    if (!written) return;
    // Entries at both ends of the ring: KVM's next is still further on by the number of those at
    // its beginning.
    ring.gap = *written != first && is_dirty(ring, first);
    first = *written;
  }
  uint32_t written = 0;
  while (written < entries_ && is_dirty(ring, first + written)) written++;
  // A KVM that stops in time leaves its reserve empty.
  if (written == entries_) overran(ring);
  give_back(ring, ring.gap ? ring.next + entries_ : first + written);
  empty();
}

// KVM_RESET_DIRTY_RINGS may stop early when a signal comes. Pages whose entries are left would be
// written unseen.
void DirtyRings::empty() {
  for (int vain = 0; given_back_ > 0;) {
    uint64_t emptied = vm_.reset_dirty_rings();
    vain = emptied == 0 ? vain + 1 : 0;
    if (emptied > given_back_ || vain == kMostVainResets) {
      throw Error("ERR_IOCTL", "KVM_RESET_DIRTY_RINGS does not empty what was given back");
    }
    given_back_ -= emptied;
  }
}

void DirtyRings::overran(Ring& ring) {
  ring.gap = true;
  if (std::exchange(overran_, true)) return;
  for (DirtySlot& slot : kept_) slot.mark(0, slot.pages);
}

void DirtyRings::keep(std::vector<DirtySlot> slots) {
  std::lock_guard lock(mutex_);
  for (Ring& ring : rings_) drain(ring);
  kept_ = std::move(slots);
  overran_ = false;
  lost_ = {};
}

void DirtyRings::drain_full(unsigned index) {
  auto started = std::chrono::steady_clock::now();
  std::lock_guard lock(mutex_);
  Ring& ring = rings_[index];
  drain(ring);
  if (ring.was_full && ring.next == ring.next_when_full) {
    relieve(ring);
  } else {
    ring.skipped = 0;
  }
  ring.was_full = true;
  ring.next_when_full = ring.next;
  lost_ += std::chrono::steady_clock::now() - started;
}

// Full again, with not one entry more than when it was full before: KVM counts entries that are
// lost. How many is not to be seen; so it gets back fewer than it takes to be full, until it lets
// the vCPU go on.
void DirtyRings::relieve(Ring& ring) {
  overran(ring);
  uint32_t some = entries_ / kSkippedPart;
  ring.skipped += some;
  if (ring.skipped > kMostLost) {
    throw Error("ERR_IOCTL",
                "KVM says that a dirty ring is full, and nothing is in it: make the machine with "
                "a larger ring, or without one and track with `bitmap`");
  }
  give_back(ring, ring.next + some);
  empty();
}

bool DirtyRings::take(std::vector<DirtySlot>& slots) {
  std::lock_guard lock(mutex_);
  for (Ring& ring : rings_) drain(ring);
  join(slots, kept_);
  for (DirtySlot& slot : kept_) std::fill(slot.bitmap.begin(), slot.bitmap.end(), 0);
  return !std::exchange(overran_, false);
}

std::chrono::nanoseconds DirtyRings::take_lost() {
  std::lock_guard lock(mutex_);
  return std::exchange(lost_, {});
}

}  // namespace kvmsnap
