// NativeImage of lib/native/binding.ts.
#pragma once

#include <napi.h>

#include <memory>

#include "memory/guest_memory.h"
#include "memory/image_writer.h"

namespace kvmsnap {

class ImageObject final : public Napi::ObjectWrap<ImageObject> {
 public:
  static void define(Napi::Env env, Napi::Object exports);

  struct Contents {
    FrozenMemory memory;
    /// What of it is written; null: all of it.
    std::shared_ptr<const Content> content;
  };
  static Napi::Value wrap(Napi::Env env, const Contents& contents);

  explicit ImageObject(const Napi::CallbackInfo& info);

  /// Throws ERR_CLOSED.
  const std::shared_ptr<const Image>& image() const;

 private:
  Napi::Value regions(const Napi::CallbackInfo& info);
  Napi::Value mark(const Napi::CallbackInfo& info);
  Napi::Value is_related_to(const Napi::CallbackInfo& info);
  Napi::Value changed_since(const Napi::CallbackInfo& info);
  Napi::Value prepare(const Napi::CallbackInfo& info);
  Napi::Value check(const Napi::CallbackInfo& info);
  Napi::Value measure(const Napi::CallbackInfo& info);
  Napi::Value read(const Napi::CallbackInfo& info);
  Napi::Value part_count(const Napi::CallbackInfo& info);
  Napi::Value write(const Napi::CallbackInfo& info);
  Napi::Value share(const Napi::CallbackInfo& info);
  void close(const Napi::CallbackInfo& info);

  ImageLayout layout_of(const Napi::Value& part_size) const;

  FrozenMemory memory_;
  std::shared_ptr<const Content> content_;
};

/// A part's CRC-32Cs as a Uint32Array.
Napi::Value from_checksums(Napi::Env env, const WrittenPart& part);

/// The image in a NativeImage. Throws ERR_INVALID_ARGUMENT for any other value.
std::shared_ptr<const Image> image_of(Napi::Env env, const Napi::Value& value);

}  // namespace kvmsnap
