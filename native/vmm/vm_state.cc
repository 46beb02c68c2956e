#include "vmm/vm_state.h"

#include <chrono>

#include "vmm/pit_state.h"

namespace kvmsnap {

namespace {

// KVM before Linux 5.16, or on a host whose own clock is not the TSC, leaves out when it was.
kvm_clock_data with_time(kvm_clock_data clock) {
  if ((clock.flags & KVM_CLOCK_REALTIME) != 0) return clock;
  auto now = std::chrono::system_clock::now().time_since_epoch();
  auto ns = std::chrono::duration_cast<std::chrono::nanoseconds>(now).count();
  clock.flags |= KVM_CLOCK_REALTIME;
  clock.realtime = static_cast<uint64_t>(ns);
  return clock;
}

}  // namespace

VmState save_vm(const VmFd& vm, bool irqchip) {
  VmState state;
  state.clock = with_time(vm.clock());
  if (irqchip) {
    // The PIT's timer goes on while vCPUs stand still: a tick after this is in the PIC below.
    kvm_pit_state2 pit2 = vm.pit2();
    state.irqchip = IrqchipState{.pic_master = vm.irqchip(KVM_IRQCHIP_PIC_MASTER),
                                 .pic_slave = vm.irqchip(KVM_IRQCHIP_PIC_SLAVE),
                                 .ioapic = vm.irqchip(KVM_IRQCHIP_IOAPIC),
                                 .pit2 = pit2};
  }
  return state;
}

void load_vm(const VmFd& vm, const VmState& state) {
  if (state.irqchip) {
    auto set_chip = [&](kvm_irqchip chip, uint32_t id) {
      // A snapshot's own number is not believed.
      chip.chip_id = id;
      vm.set_irqchip(chip);
    };
    bool pit_first = one_shot_is_pending(state.irqchip->pit2, state.irqchip->pic_master);
    if (pit_first) load_expired_pit(vm, state.irqchip->pit2);
    // The slave before the master: whenever KVM sets one of the two it raises the master's input 2
    // if the slave has a request (arch/x86/kvm/i8259.c, kvm_pic_update_irq). The master's own state
    // then replaces what the slave of before, or this one, has raised there.
    set_chip(state.irqchip->pic_slave, KVM_IRQCHIP_PIC_SLAVE);
    set_chip(state.irqchip->pic_master, KVM_IRQCHIP_PIC_MASTER);
    set_chip(state.irqchip->ioapic, KVM_IRQCHIP_IOAPIC);
    // After the PICs, so that a tick that is due at once meets the restored ones.
    if (!pit_first) vm.set_pit2(state.irqchip->pit2);
  }
  kvm_clock_data clock = {};
  // No flags: KVM would add the time since. Where that is wanted, moved_on has, to TSCs too.
  clock.clock = state.clock.clock;
  vm.set_clock(clock);
}

}  // namespace kvmsnap
