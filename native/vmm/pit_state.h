// Loading the in-kernel 8254. KVM saves what was programmed, not how far it is: KVM_SET_PIT2 starts
// every count anew, so that a one-shot whose interrupt is still pending would give another.
#pragma once

#include "kvm/vm_fd.h"

namespace kvmsnap {

/// Stops channel 0. A tick of it may be under way, in a thread of KVM's: when this returns it has
/// come, or never will. Must be called before the state of a machine that has run is replaced: else
/// it could come after the PICs are loaded, as one that their guest never asked for.
void stop_pit(const VmFd& vm);

/// Whether channel 0 is a one-shot whose tick waits in the master PIC. One whose tick was taken
/// looks like one that still counts, and is started again: better a tick too many than a guest that
/// waits for ever. The same for ticks by way of the IOAPIC.
bool one_shot_is_pending(const kvm_pit_state2& pit, const kvm_irqchip& pic_master);

/// Loads a PIT of which that is so, without another tick. Must be called before PICs and IOAPIC are
/// loaded: KVM can be made to hold a count that has run out only by letting it run out, and the
/// tick goes there.
void load_expired_pit(const VmFd& vm, kvm_pit_state2 pit);

}  // namespace kvmsnap
