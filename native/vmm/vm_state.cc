#include "vmm/vm_state.h"

#include "vmm/pit_state.h"

namespace kvmsnap {

VmState save_vm(const VmFd& vm, bool irqchip) {
  VmState state;
  state.clock = vm.clock();
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
    set_chip(state.irqchip->pic_master, KVM_IRQCHIP_PIC_MASTER);
    set_chip(state.irqchip->pic_slave, KVM_IRQCHIP_PIC_SLAVE);
    set_chip(state.irqchip->ioapic, KVM_IRQCHIP_IOAPIC);
    // After the PICs, so that a tick that is due at once meets the restored ones.
    if (!pit_first) vm.set_pit2(state.irqchip->pit2);
  }
  kvm_clock_data clock = {};
  // No flags: the guest's clock goes on from where it stood, not from the host's time.
  clock.clock = state.clock.clock;
  vm.set_clock(clock);
}

}  // namespace kvmsnap
