// NativePreparedMachine of lib/native/binding.ts: a configuration converted once for many machines.
#pragma once

#include <napi.h>

#include "vmm/machine.h"

namespace kvmsnap {

Napi::Value prepare_machine(const Napi::CallbackInfo& info);
/// preparedState of the binding.
Napi::Value prepared_state(const Napi::CallbackInfo& info);
Napi::Value wrap_prepared(Napi::Env env, MachineConfig config);

/// The configuration in a NativePreparedMachine. Throws ERR_INVALID_ARGUMENT for anything else, and
/// is valid as long as the value.
const MachineConfig& prepared_of(Napi::Env env, const Napi::Value& value);

/// The configuration in a NativePreparedMachine, or converted from a plain one.
MachineConfig config_of(Napi::Env env, const Napi::Value& value);

}  // namespace kvmsnap
