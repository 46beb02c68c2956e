#include "vmm/pit_state.h"

#include <chrono>
#include <thread>

namespace kvmsnap {

namespace {

using Clock = std::chrono::steady_clock;

// KVM delivers a tick from a worker thread, after some 50 µs. A line that a program holds up never
// shows it.
constexpr auto kPatience = std::chrono::milliseconds(100);

constexpr uint32_t kTimerLine = 1 << 0;

// The master PIC has had an edge on line 0, and the line is down again there and at the IOAPIC,
// which KVM wires it to as input 0.
bool tick_has_passed(const VmFd& vm) {
  const kvm_pic_state pic = vm.irqchip(KVM_IRQCHIP_PIC_MASTER).chip.pic;
  if ((pic.irr & kTimerLine) == 0 || (pic.last_irr & kTimerLine) != 0) return false;
  return (vm.irqchip(KVM_IRQCHIP_IOAPIC).chip.ioapic.irr & kTimerLine) == 0;
}

}  // namespace

void stop_pit(const VmFd& vm) {
  // arch/x86/kvm/i8254.c: a mode that is none cancels the timer and waits for its worker.
  constexpr uint8_t kNoMode = 0xFF;
  kvm_pit_state2 pit = {};
  pit.channels[0].mode = kNoMode;
  vm.set_pit2(pit);
}

bool one_shot_is_pending(const kvm_pit_state2& pit, const kvm_irqchip& pic_master) {
  // Intel 8254: interrupt on terminal count, hardware one-shot, software strobe. KVM runs all three
  // as one-shots.
  uint8_t mode = pit.channels[0].mode;
  if (mode != 0 && mode != 1 && mode != 4) return false;
  // A line that is masked keeps the first edge it had, for ever.
  const kvm_pic_state& pic = pic_master.chip.pic;
  return (pic.irr & ~pic.imr & kTimerLine) != 0;
}

void load_expired_pit(const VmFd& vm, kvm_pit_state2 pit) {
  // So that the edge shows, whatever the PIC has.
  kvm_irqchip blank = {};
  blank.chip_id = KVM_IRQCHIP_PIC_MASTER;
  vm.set_irqchip(blank);
  // That its tick is not acknowledged is forgotten when the guest sets the next count. (Turning
  // reinjection off and on, KVM_REINJECT_CONTROL, would forget it at once, and take 20 ms.)
  pit.channels[0].count = 1;
  vm.set_pit2(pit);
  for (auto deadline = Clock::now() + kPatience; !tick_has_passed(vm) && Clock::now() < deadline;) {
    std::this_thread::yield();
  }
}

}  // namespace kvmsnap
