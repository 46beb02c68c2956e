// Machine configuration, state and exits, between JavaScript's shapes (lib/native/binding.ts) and
// native ones.
#pragma once

#include <napi.h>

#include "vmm/machine.h"

namespace kvmsnap {

MachineConfig to_config(const Napi::Value& value);
/// `undefined` or `keep`, and `host`.
ClockPolicy to_clock_policy(const Napi::Value& value);
MachineState to_state(const Napi::Value& value);
Napi::Value from_stopped(Napi::Env env, const StoppedState& stopped);
Napi::Value from_state(Napi::Env env, const MachineState& state);
RegionSpec to_region(const Napi::Value& value);
Napi::Value from_regions(Napi::Env env, const std::vector<RegionSpec>& regions);
Napi::Value from_exit(Napi::Env env, const OwnedExit& exit);
Napi::Value from_stop(Napi::Env env, const Stop& stop);

}  // namespace kvmsnap
