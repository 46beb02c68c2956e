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

uint32_t get(const kvm_lapic_state& lapic, size_t offset) {
  uint32_t value;
  std::memcpy(&value, lapic.regs + offset, sizeof value);
  return value;
}

void set(kvm_lapic_state& lapic, size_t offset, uint32_t value) {
  std::memcpy(lapic.regs + offset, &value, sizeof value);
}

size_t irr_word(uint8_t vector) { return kIrr + size_t{vector} / 32 * 16; }
uint32_t irr_bit(uint8_t vector) { return 1u << vector % 32; }

}  // namespace

TimerView::TimerView(const kvm_lapic_state& lapic)
    : lvt_(get(lapic, kLvtTimer)),
      initial_(get(lapic, kInitialCount)),
      count_(get(lapic, kCurrentCount)),
      divide_(get(lapic, kDivide)),
      requested_((get(lapic, irr_word(vector())) & irr_bit(vector())) != 0) {}

// KVM's bus cycle is 1 ns (APIC_BUS_CYCLE_NS); the divide register's bits 3, 1, 0 are log2 - 1, and
// 7 stands for 1.
std::chrono::nanoseconds TimerView::whole() const {
  uint32_t code = (divide_ & 3) | (divide_ & 8) >> 1;
  uint64_t divisor = uint64_t{1} << ((code + 1) & 7);
  return std::chrono::nanoseconds(initial_ * divisor);
}

bool TimerView::says_all() const {
  return !counts_down() || !interrupts() || requested() || (one_shot() && count() != 0);
}

// KVM starts the next period in the callback that makes the tick known. So a count of 0 is a tick
// whose callback is still to come, and one that has grown has been started anew.
bool has_ticked(const TimerView& first, const TimerView& second) {
  return second.requested() || first.count() == 0 || second.count() == 0 ||
         second.count() > first.count();
}

void StandingTimer::note(const TimerView& timer, bool ticked) {
  note_loaded(timer);
  if (!registers_) return;
  if (timer.one_shot() && timer.count() == 0) registers_->initial = 0;
  if (ticked && timer.interrupts()) registers_->request = timer.vector();
}

void StandingTimer::note_loaded(const TimerView& timer) {
  noted_ = true;
  registers_.reset();
  if (timer.counts_down()) registers_ = {timer.initial(), timer.count(), 0};
}

void StandingTimer::complete(kvm_lapic_state& lapic) const {
  if (!counts_down()) return;
  set(lapic, kInitialCount, registers_->initial);
  set(lapic, kCurrentCount, registers_->count);
  uint8_t vector = registers_->request;
  if (vector == 0) return;
  set(lapic, irr_word(vector), get(lapic, irr_word(vector)) | irr_bit(vector));
}

}  // namespace kvmsnap
