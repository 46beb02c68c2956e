// What shows that a guest in ring 3 has stayed there, so that a reset need not put back what only
// ring 0 can change.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "memory/guest_memory.h"
#include "memory/image_layout.h"
#include "vmm/machine_state.h"

namespace kvmsnap {

/// The pages on which it hangs that a vCPU in this state never leaves ring 3: its page tables, and
/// the descriptor tables that they map. As long as nobody writes to them it stays there. Ordered;
/// null when the vCPU is not in ring 3 or has a way out of it. `memory` is that of the same
/// instant.
///
/// In long mode every way from ring 3 to another ring leads through an interrupt or call gate,
/// SYSCALL or SYSENTER (Intel SDM volume 3, chapters 6 and 7): with an empty IDT, no descriptor
/// that ring 3 may call, and both instructions off, the CPU shuts down instead. What such a guest
/// can change is its memory, its general, segment and FPU registers, and CR2.
///
/// With an in-kernel irqchip it must not reach the LAPIC or the IOAPIC either: they take orders
/// from any ring, to enter SMM for one.
std::optional<std::vector<uint64_t>> pages_that_confine(const VcpuState& vcpu, bool irqchip,
                                                        const GuestMemory& memory);

class Confinement {
 public:
  /// The machine is at that instant, memory and all.
  void begin(std::shared_ptr<const MachineState> state);
  /// Something other than a guest's instruction changed the machine's state, or may have: the
  /// owner, or KVM when a vCPU shut down. From any thread.
  void breach() { breached_.store(true, std::memory_order_relaxed); }
  /// Whether that is the state it began in.
  bool knows(const MachineState& state) const { return state_.get() == &state; }
  /// Whether all that can have changed since `state` is what a guest in ring 3 can change. Memory
  /// has been put back there; `written` is where it was not what it was.
  bool held(const std::shared_ptr<const MachineState>& state, std::span<const GpaRange> written,
            const GuestMemory& memory);

 private:
  std::shared_ptr<const MachineState> state_;
  std::atomic<bool> breached_ = true;
  /// Pages of all vCPUs at `state_`, once somebody asked.
  bool known_ = false;
  std::optional<std::vector<uint64_t>> pages_;
};

}  // namespace kvmsnap
