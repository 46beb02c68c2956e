// The VM's state outside its vCPUs: in-kernel PIC, IOAPIC, PIT, and the paravirtual clock.
#pragma once

#include <cstdint>
#include <optional>

#include "kvm/vm_fd.h"

namespace kvmsnap {

struct IrqchipState {
  kvm_irqchip pic_master;
  kvm_irqchip pic_slave;
  kvm_irqchip ioapic;
  kvm_pit_state2 pit2;
};

struct VmState {
  /// Absent without an in-kernel irqchip.
  std::optional<IrqchipState> irqchip;
  /// With KVM_CLOCK_REALTIME: `realtime` is the host's time of that instant.
  kvm_clock_data clock = {};
};

/// Must be called before the vCPUs are saved: interrupts go from PIT to PIC and IOAPIC to LAPIC,
/// and saving in that direction can neither lose one nor see it twice.
VmState save_vm(const VmFd& vm, bool irqchip);

/// Must be called before the vCPUs are loaded: setting the IOAPIC delivers its pending edges, which
/// the LAPICs' own state then replaces.
void load_vm(const VmFd& vm, const VmState& state);

}  // namespace kvmsnap
