// The in-kernel 8254. KVM saves what was programmed, not how far it is: KVM_SET_PIT2 starts every
// count anew, so that a one-shot that has fired would fire again.
#pragma once

#include "kvm/vm_fd.h"

namespace kvmsnap {

/// `count_load_time` of a saved channel: the count runs, or it was a one-shot and has run out. In
/// place of the time of the host's clock that KVM gives, which means nothing elsewhere.
constexpr int64_t kPitCounting = 0;
constexpr int64_t kPitExpired = -1;

/// The state with `count` of a one-shot on channel 0 being what is left of it. Must be called
/// before the PICs are saved: what has fired by then is in them.
kvm_pit_state2 save_pit(const VmFd& vm);

/// Must be called before the PICs and the IOAPIC are loaded, when `expired_one_shot`: KVM can be
/// made to hold a count that has run out only by letting it run out, and its tick goes there. Else
/// after them, so that the first tick meets the restored ones.
void load_pit(const VmFd& vm, const kvm_pit_state2& state);
bool expired_one_shot(const kvm_pit_state2& state);

}  // namespace kvmsnap
