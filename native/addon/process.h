#pragma once

#include <napi.h>

namespace kvmsnap {

/// `sealProcess` of `lib/native/binding.ts`.
void seal_process(const Napi::CallbackInfo& info);

}  // namespace kvmsnap
