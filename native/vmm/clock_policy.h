// What a guest's clocks show when it goes on from a state: nothing of the time since, or all of it.
#pragma once

#include <chrono>
#include <cstdint>

#include "vmm/machine_state.h"

namespace kvmsnap {

enum class ClockPolicy : uint8_t {
  /// They go on from where they stood.
  Keep,
  /// They have gone on meanwhile, as the host's clock did.
  Host,
};

/// How long ago a state was saved, by the host's clock, which is `now` since 1970. 0 for one of the
/// future: a guest's clock never goes back. Throws ERR_STATE for a state that does not say.
std::chrono::nanoseconds age_of(const MachineState& state, std::chrono::nanoseconds now);

/// The same state so much later, with the paravirtual clock and each vCPU's TSC moved on alike.
/// What was due meanwhile by the TSC (its deadline timer) is due at once; timers that count down
/// (PIT, LAPIC) stood still, and the CMOS clock shows the host's time anyhow.
MachineState moved_on(const MachineState& state, std::chrono::nanoseconds time);

/// Moved on to this moment.
MachineState moved_to_now(const MachineState& state);

}  // namespace kvmsnap
