// Functions of the binding that work on files: images out of them, digests of them.
#pragma once

#include <napi.h>

namespace kvmsnap {

Napi::Value image_from_files(const Napi::CallbackInfo& info);
Napi::Value digest_file_in_background(const Napi::CallbackInfo& info);

}  // namespace kvmsnap
