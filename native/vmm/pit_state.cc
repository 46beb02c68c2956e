#include "vmm/pit_state.h"

#include <algorithm>
#include <chrono>
#include <thread>

namespace kvmsnap {

namespace {

using std::chrono::nanoseconds;
using Clock = std::chrono::steady_clock;

// KVM_PIT_FREQ (arch/x86/kvm/i8254.h): 1193182 Hz.
constexpr int64_t kFrequency = 1193182;
constexpr int64_t kSecond = 1'000'000'000;

// KVM delivers a tick from a worker thread: this long after the timer it is in the PIC.
constexpr nanoseconds kDelivery = std::chrono::microseconds(500);
// How long to wait for the tick of a count of 1. A line that a program holds up never shows it.
constexpr nanoseconds kPatience = std::chrono::milliseconds(20);

// Intel 8254: interrupt on terminal count, hardware one-shot, software strobe. KVM runs all three
// as one-shots.
bool is_one_shot(const kvm_pit_channel_state& channel) {
  return channel.mode == 0 || channel.mode == 1 || channel.mode == 4;
}

nanoseconds duration_of(uint32_t count) { return nanoseconds(count * kSecond / kFrequency); }

// Both clocks are CLOCK_MONOTONIC: KVM takes ktime_get().
nanoseconds now() {
  return std::chrono::duration_cast<nanoseconds>(Clock::now().time_since_epoch());
}

// The master PIC has had an edge on line 0, and the line is down again there and at the IOAPIC,
// which KVM wires it to as input 0.
bool tick_has_passed(const VmFd& vm) {
  kvm_irqchip pic = vm.irqchip(KVM_IRQCHIP_PIC_MASTER);
  if ((pic.chip.pic.irr & 1) == 0 || (pic.chip.pic.last_irr & 1) != 0) return false;
  return (vm.irqchip(KVM_IRQCHIP_IOAPIC).chip.ioapic.irr & 1) == 0;
}

void load_expired(const VmFd& vm, kvm_pit_state2 state) {
  // So that the edge shows, whatever the PIC has.
  kvm_irqchip blank = {};
  blank.chip_id = KVM_IRQCHIP_PIC_MASTER;
  vm.set_irqchip(blank);
  // That its tick is not acknowledged is forgotten when the guest sets the next count. (Turning
  // reinjection off and on, KVM_REINJECT_CONTROL, would forget it at once, and take 20 ms.)
  state.channels[0].count = 1;
  vm.set_pit2(state);
  for (auto deadline = Clock::now() + kPatience; !tick_has_passed(vm) && Clock::now() < deadline;) {
    std::this_thread::yield();
  }
}

}  // namespace

kvm_pit_state2 save_pit(const VmFd& vm) {
  kvm_pit_state2 state = vm.pit2();
  kvm_pit_channel_state& channel = state.channels[0];
  bool one_shot = is_one_shot(channel) && channel.count != 0;
  nanoseconds started(channel.count_load_time);
  for (auto& each : state.channels) each.count_load_time = kPitCounting;
  if (!one_shot) return state;

  nanoseconds expiry = started + duration_of(channel.count);
  nanoseconds left = expiry - now();
  // It must not fire between here and the saving of the PICs, nor be on its way to them.
  if (left < kDelivery && left > -kDelivery) std::this_thread::sleep_for(left + kDelivery);
  if (left < kDelivery) {
    channel.count = 1;
    channel.count_load_time = kPitExpired;
  } else {
    int64_t rest = left.count() * kFrequency / kSecond;
    channel.count = static_cast<uint32_t>(std::clamp<int64_t>(rest, 1, channel.count));
  }
  return state;
}

bool expired_one_shot(const kvm_pit_state2& state) {
  return is_one_shot(state.channels[0]) && state.channels[0].count_load_time == kPitExpired;
}

void load_pit(const VmFd& vm, const kvm_pit_state2& state) {
  if (expired_one_shot(state)) {
    load_expired(vm, state);
  } else {
    vm.set_pit2(state);
  }
}

}  // namespace kvmsnap
