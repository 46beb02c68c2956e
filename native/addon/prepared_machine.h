// NativePreparedMachine of lib/native/binding.ts: a configuration converted once for many machines.
#pragma once

#include <napi.h>

#include <memory>

#include "vmm/machine.h"

namespace kvmsnap {

using Prepared = std::shared_ptr<const MachineConfig>;

Napi::Value prepare_machine(const Napi::CallbackInfo& info);
/// preparedState of the binding.
Napi::Value prepared_state(const Napi::CallbackInfo& info);
Napi::Value wrap_prepared(Napi::Env env, MachineConfig config);

/// The configuration in a NativePreparedMachine. Throws ERR_INVALID_ARGUMENT for anything else.
const Prepared& prepared_of(Napi::Env env, const Napi::Value& value);

/// The configuration in a NativePreparedMachine, or converted from a plain one.
MachineConfig config_of(Napi::Env env, const Napi::Value& value);

}  // namespace kvmsnap
