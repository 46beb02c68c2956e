// NativeHost of lib/native/binding.ts: what this machine's KVM is and can do.
#pragma once

#include <napi.h>

namespace kvmsnap {

Napi::Value host(const Napi::CallbackInfo& info);

}  // namespace kvmsnap
