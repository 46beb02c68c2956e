// The life of a NativeImage: who makes it, what it holds, reading it.
#include "addon/image_object.h"

#include "addon/background.h"
#include "addon/convert.h"
#include "addon/environment.h"
#include "addon/tagged.h"

namespace kvmsnap {

namespace {

// Random, as napi_type_tag_object wants it: tells an image from any other wrapped object.
constexpr napi_type_tag kImageTag = {0x8d6c3b0f5a1e4c77, 0xa24f9be01d7758c3};

// See Handover.
thread_local const ImageObject::Contents* contents_of_new = nullptr;

}  // namespace

void ImageObject::define(Napi::Env env, Napi::Object) {
  Napi::Function constructor = DefineClass(
      env, "NativeImage",
      {tagged_accessor<ImageObject, &ImageObject::regions, &kImageTag>("regions"),
       InstanceMethod<&ImageObject::mark>("mark"),
       InstanceMethod<&ImageObject::is_related_to>("isRelatedTo"),
       InstanceMethod<&ImageObject::changed_since>("changedSince"),
       InstanceMethod<&ImageObject::prepare>("prepare"),
       InstanceMethod<&ImageObject::check>("check"),
       InstanceMethod<&ImageObject::measure>("measure"), InstanceMethod<&ImageObject::read>("read"),
       InstanceMethod<&ImageObject::part_count>("partCount"),
       InstanceMethod<&ImageObject::share>("share"), InstanceMethod<&ImageObject::write>("write"),
       InstanceMethod<&ImageObject::close>("close")});
  Environment::of(env).image_class = Napi::Persistent(constructor);
}

Napi::Value ImageObject::wrap(Napi::Env env, const Contents& contents) {
  Handover handover(contents_of_new, contents);
  return Environment::of(env).image_class.New({});
}

ImageObject::ImageObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<ImageObject>(info) {
  guard(info.Env(), [&] {
    const auto* contents = contents_of_new;
    if (contents == nullptr) {
      throw Error("ERR_INVALID_ARGUMENT", "images come from imageFromFiles and freeze only");
    }
    memory_ = contents->memory;
    content_ = contents->content;
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

Napi::Value ImageObject::prepare(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&]() -> Napi::Value {
    if (!image()->wants_preparing()) return info.Env().Undefined();
    auto work = [image = image()](WorkControl& control) {
      image->prepare(control.cancelled);
      return true;
    };
    return start_background(info.Env(), "kvmsnap-prepare", info.Env().Undefined(), work,
                            [](Napi::Env env, bool) { return env.Undefined(); });
  });
}

Napi::Value ImageObject::check(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&]() -> Napi::Value {
    return start_background(
        info.Env(), "kvmsnap-check", info.Env().Undefined(),
        [image = image()](WorkControl& control) {
          image->require_whole();
          ChunkChecks(*image).require_all(control.cancelled);
          return true;
        },
        [](Napi::Env env, bool) { return env.Undefined(); });
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

Napi::Value ImageObject::share(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&] {
    return wrap(info.Env(), {.memory = {.image = image(), .views = {}}, .content = content_});
  });
}

void ImageObject::close(const Napi::CallbackInfo&) {
  memory_ = {};
  content_ = nullptr;
}

}  // namespace kvmsnap
