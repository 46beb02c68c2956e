// NativePreparedMachine of lib/native/binding.ts: a configuration converted once for many machines.
#pragma once

#include <napi.h>

#include "vmm/machine.h"

namespace kvmsnap {

Napi::Value prepare_machine(const Napi::CallbackInfo& info);

/// The configuration in a NativePreparedMachine, or converted from a plain one.
MachineConfig config_of(Napi::Env env, const Napi::Value& value);

}  // namespace kvmsnap
