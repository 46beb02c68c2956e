#include "addon/image_object.h"

#include <fcntl.h>

#include "addon/background.h"
#include "addon/convert.h"
#include "addon/environment.h"
#include "addon/sha256.h"
#include "addon/tagged.h"
#include "memory/image_layout.h"

namespace kvmsnap {

namespace {

// Random, as napi_type_tag_object wants it: tells an image from any other wrapped object.
constexpr napi_type_tag kImageTag = {0x8d6c3b0f5a1e4c77, 0xa24f9be01d7758c3};

// See Handover.
thread_local const FrozenMemory* memory_of_new = nullptr;

struct WrittenImage {
  ImageLayout layout;
  std::vector<WrittenPart> parts;
};

}  // namespace

Napi::Value from_checksums(Napi::Env env, const WrittenPart& part) {
  auto checksums = Napi::Uint32Array::New(env, part.crc32c.size());
  for (size_t i = 0; i < part.crc32c.size(); i++) checksums[i] = part.crc32c[i];
  return checksums;
}

namespace {

Napi::Value from_written(Napi::Env env, const WrittenImage& written) {
  Napi::Array parts = Napi::Array::New(env, written.parts.size());
  Napi::Array checksums = Napi::Array::New(env, written.parts.size());
  for (uint32_t i = 0; i < written.parts.size(); i++) {
    Napi::Object part = Napi::Object::New(env);
    part["sha256"] = from_bytes(env, written.parts[i].sha256);
    part["size"] = static_cast<double>(written.parts[i].size);
    parts[i] = part;
    checksums[i] = from_checksums(env, written.parts[i]);
  }
  Napi::Array extents = Napi::Array::New(env, written.layout.extents.size());
  for (uint32_t i = 0; i < written.layout.extents.size(); i++) {
    const Extent& source = written.layout.extents[i];
    Napi::Object extent = Napi::Object::New(env);
    extent["file"] = source.file;
    extent["gpa"] = from_address(env, source.gpa);
    extent["length"] = static_cast<double>(source.length);
    extent["offset"] = static_cast<double>(source.offset);
    extents[i] = extent;
  }
  Napi::Object result = Napi::Object::New(env);
  result["parts"] = parts;
  result["extents"] = extents;
  result["crc32c"] = checksums;
  result["chunkSize"] = static_cast<double>(kChunk);
  return result;
}

}  // namespace

void ImageObject::define(Napi::Env env, Napi::Object) {
  Napi::Function constructor = DefineClass(
      env, "NativeImage",
      {tagged_accessor<ImageObject, &ImageObject::regions, &kImageTag>("regions"),
       InstanceMethod<&ImageObject::measure>("measure"), InstanceMethod<&ImageObject::read>("read"),
       InstanceMethod<&ImageObject::part_count>("partCount"),
       InstanceMethod<&ImageObject::share>("share"), InstanceMethod<&ImageObject::write>("write"),
       InstanceMethod<&ImageObject::close>("close")});
  Environment::of(env).image_class = Napi::Persistent(constructor);
}

Napi::Value ImageObject::wrap(Napi::Env env, const FrozenMemory& memory) {
  Handover handover(memory_of_new, memory);
  return Environment::of(env).image_class.New({});
}

ImageObject::ImageObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<ImageObject>(info) {
  guard(info.Env(), [&] {
    const auto* memory = memory_of_new;
    if (memory == nullptr) {
      throw Error("ERR_INVALID_ARGUMENT", "images come from imageFromFiles and freeze only");
    }
    memory_ = *memory;
    info.This().As<Napi::Object>().TypeTag(&kImageTag);
  });
}

const std::shared_ptr<const Image>& ImageObject::image() const {
  if (memory_.image == nullptr) throw Error("ERR_CLOSED", "the image was closed");
  return memory_.image;
}

std::shared_ptr<const Image> image_of(Napi::Env, const Napi::Value& value) {
  if (!value.IsObject() || !value.As<Napi::Object>().CheckTypeTag(&kImageTag)) {
    throw Error("ERR_INVALID_ARGUMENT", "image must be a NativeImage");
  }
  return ImageObject::Unwrap(value.As<Napi::Object>())->image();
}

Napi::Value ImageObject::regions(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&]() -> Napi::Value {
    Napi::Array array = Napi::Array::New(info.Env());
    for (const GpaRange& range : image()->regions()) {
      Napi::Object region = Napi::Object::New(info.Env());
      region["gpa"] = from_address(info.Env(), range.gpa);
      region["size"] = static_cast<double>(range.size);
      array[array.Length()] = region;
    }
    return array;
  });
}

Napi::Value ImageObject::measure(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&] {
    return start_background(
        info.Env(), "kvmsnap-measure", info.Env().Undefined(),
        [image = image()](WorkControl&) { return content_bytes(*image); },
        [](Napi::Env env, uint64_t bytes) -> Napi::Value {
          return Napi::Number::New(env, static_cast<double>(bytes));
        });
  });
}

Napi::Value ImageObject::read(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&]() -> Napi::Value {
    uint64_t gpa = to_address(info[0], "gpa");
    uint64_t length = to_copy_length(info[1], "length");
    auto buffer = Napi::Buffer<uint8_t>::New(info.Env(), length);
    image()->read(gpa, {buffer.Data(), length});
    return buffer;
  });
}

Napi::Value ImageObject::part_count(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&]() -> Napi::Value {
    ImageLayout layout = lay_out(*image(), to_uint64(info[0], "partSize"));
    return Napi::Number::New(info.Env(), static_cast<double>(layout.part_sizes.size()));
  });
}

Napi::Value ImageObject::write(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&]() -> Napi::Value {
    ImageLayout layout = lay_out(*image(), to_uint64(info[0], "partSize"));
    Napi::Object options = to_object(info[1], "options");
    bool durable = to_bool(options.Get("durable"), "durable");
    Napi::Array fds = to_array(options.Get("fds"), "fds");
    std::vector<UniqueFd> files;
    for (uint32_t i = 0; i < fds.Length(); i++) {
      // Duplicates: the caller may close its own at any time.
      files.emplace_back(
          ::fcntl(static_cast<int>(to_uint32(fds.Get(i), "fds")), F_DUPFD_CLOEXEC, 3));
      if (!files.back()) throw_system("fcntl");
    }
    auto writer =
        std::make_shared<ImageWriter>(image(), std::move(layout), std::move(files), make_sha256);
    return start_background(
        info.Env(), "kvmsnap-write", options.Get("progress"),
        [writer, durable, views = memory_.views](WorkControl& control) {
          std::vector<WrittenPart> parts = writer->run(durable, control);
          return WrittenImage{writer->layout(), std::move(parts)};
        },
        from_written);
  });
}

Napi::Value ImageObject::share(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&] { return wrap(info.Env(), {.image = image(), .views = {}}); });
}

void ImageObject::close(const Napi::CallbackInfo&) { memory_ = {}; }

}  // namespace kvmsnap
