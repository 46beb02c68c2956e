#include "vmm/lapic_timer.h"

#include <cstring>

namespace kvmsnap {

namespace {

// Intel SDM volume 3, table 11-1: 32-bit registers at 16-byte steps.
constexpr size_t kIrr = 0x200;
constexpr size_t kLvtTimer = 0x320;
constexpr size_t kInitialCount = 0x380;
constexpr size_t kCurrentCount = 0x390;
constexpr size_t kDivide = 0x3E0;

// LVT timer: vector 7:0, mask 16, mode 18:17 (0 one-shot, 1 periodic, 2 TSC deadline).
constexpr uint32_t kVector = 0xFF;
constexpr uint32_t kMasked = 1 << 16;
constexpr uint32_t kMode = 3 << 17;
constexpr uint32_t kOneShot = 0 << 17;
constexpr uint32_t kDeadline = 2 << 17;
// Vectors below are exceptions: the LAPIC does not deliver them.
constexpr uint32_t kFirstVector = 16;

uint32_t get(const kvm_lapic_state& lapic, size_t offset) {
  uint32_t value;
  std::memcpy(&value, lapic.regs + offset, sizeof value);
  return value;
}

void set(kvm_lapic_state& lapic, size_t offset, uint32_t value) {
  std::memcpy(lapic.regs + offset, &value, sizeof value);
}

// KVM's bus cycle is 1 ns (APIC_BUS_CYCLE_NS); the divide register's bits 3, 1, 0 are log2 - 1, and
// 7 stands for 1.
std::chrono::nanoseconds remaining(const kvm_lapic_state& lapic) {
  uint32_t bits = get(lapic, kDivide);
  uint32_t code = (bits & 3) | (bits & 8) >> 1;
  uint64_t divisor = uint64_t{1} << ((code + 1) & 7);
  return std::chrono::nanoseconds(get(lapic, kCurrentCount) * divisor);
}

}  // namespace

bool counts_down(const kvm_lapic_state& lapic) {
  return (get(lapic, kLvtTimer) & kDeadline) == 0 && get(lapic, kInitialCount) != 0;
}

void StandingTimer::note(const kvm_lapic_state& lapic, Clock::time_point now) {
  noted_ = true;
  due_.reset();
  if (counts_down(lapic) && get(lapic, kCurrentCount) != 0) due_ = now + remaining(lapic);
}

bool StandingTimer::fired(const kvm_lapic_state& lapic, Clock::time_point now) const {
  if (!due_) return false;
  bool one_shot = (get(lapic, kLvtTimer) & kMode) == kOneShot;
  // A periodic timer starts over at once, so only time tells.
  return one_shot ? get(lapic, kCurrentCount) == 0 : now >= *due_;
}

void StandingTimer::complete(kvm_lapic_state& lapic, Clock::time_point now) const {
  if (!counts_down(lapic)) return;
  uint32_t lvt = get(lapic, kLvtTimer);
  uint32_t vector = lvt & kVector;
  if (fired(lapic, now) && (lvt & kMasked) == 0 && vector >= kFirstVector) {
    size_t word = kIrr + size_t{vector / 32} * 16;
    set(lapic, word, get(lapic, word) | 1u << vector % 32);
  }
  bool one_shot = (lvt & kMode) == kOneShot;
  if (one_shot && get(lapic, kCurrentCount) == 0) set(lapic, kInitialCount, 0);
}

}  // namespace kvmsnap
