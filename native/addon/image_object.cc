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

constexpr napi_type_tag kMarkTag = {0x61f0c2b7d94e4a18, 0x9c35e7f20b8a46d1};

struct Contents {
  FrozenMemory memory;
  std::shared_ptr<const Content> content;
};

// See Handover.
thread_local const Contents* contents_of_new = nullptr;

struct WrittenImage {
  ImageLayout layout;
  std::vector<WrittenPart> parts;
  std::shared_ptr<const Content> content;
};

using Mark = std::shared_ptr<const Provenance>;

const Mark& mark_of(Napi::Env env, const Napi::Value& value) {
  if (!has_tag(env, value, kMarkTag)) {
    throw Error("ERR_INVALID_ARGUMENT", "a mark must come from the mark() of a NativeImage");
  }
  return *value.As<Napi::External<Mark>>().Data();
}

std::vector<Mark> marks_of(Napi::Env env, const Napi::Value& value) {
  Napi::Array array = to_array(value, "marks");
  std::vector<Mark> marks;
  for (uint32_t i = 0; i < array.Length(); i++) marks.push_back(mark_of(env, array.Get(i)));
  return marks;
}

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
  Napi::Array zeros = Napi::Array::New(env);
  if (written.content != nullptr) {
    for (const GpaRange& range : written.content->zeros) {
      Napi::Object zero = Napi::Object::New(env);
      zero["gpa"] = from_address(env, range.gpa);
      zero["length"] = static_cast<double>(range.size);
      zeros[zeros.Length()] = zero;
    }
  }
  Napi::Object result = Napi::Object::New(env);
  result["zeros"] = zeros;
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
       InstanceMethod<&ImageObject::mark>("mark"),
       InstanceMethod<&ImageObject::is_related_to>("isRelatedTo"),
       InstanceMethod<&ImageObject::changed_since>("changedSince"),
       InstanceMethod<&ImageObject::prepare>("prepare"),
       InstanceMethod<&ImageObject::measure>("measure"), InstanceMethod<&ImageObject::read>("read"),
       InstanceMethod<&ImageObject::part_count>("partCount"),
       InstanceMethod<&ImageObject::share>("share"), InstanceMethod<&ImageObject::write>("write"),
       InstanceMethod<&ImageObject::close>("close")});
  Environment::of(env).image_class = Napi::Persistent(constructor);
}

Napi::Value ImageObject::wrap(Napi::Env env, const FrozenMemory& memory) {
  return wrap(env, memory, nullptr);
}

Napi::Value ImageObject::wrap(Napi::Env env, const FrozenMemory& memory,
                              std::shared_ptr<const Content> content) {
  Contents contents = {.memory = memory, .content = std::move(content)};
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

Napi::Value ImageObject::mark(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&]() -> Napi::Value {
    auto owned = std::make_unique<Mark>(std::make_shared<const Provenance>(*image()));
    auto external = Napi::External<Mark>::New(info.Env(), owned.get(),
                                              [](Napi::Env, Mark* freed) { delete freed; });
    // Freed by the finalizer from here on.
    static_cast<void>(owned.release());
    external.TypeTag(&kMarkTag);
    return external;
  });
}

Napi::Value ImageObject::is_related_to(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&]() -> Napi::Value {
    return Napi::Boolean::New(info.Env(), mark_of(info.Env(), info[0])->related_to(*image()));
  });
}

Napi::Value ImageObject::changed_since(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&] {
    return start_background(
        info.Env(), "kvmsnap-compare", info.Env().Undefined(),
        [memory = memory_, image = image(),
         marks = marks_of(info.Env(), info[0])](WorkControl& control) {
          return Contents{memory, std::make_shared<const Content>(
                                      changed_content(*image, marks, control.cancelled))};
        },
        [](Napi::Env env, const Contents& found) {
          return wrap(env, found.memory, found.content);
        });
  });
}

Napi::Value ImageObject::prepare(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&]() -> Napi::Value {
    if (!image()->wants_preparing()) return info.Env().Undefined();
    auto work = [image = image()](WorkControl&) {
      image->prepare();
      return true;
    };
    return start_background(info.Env(), "kvmsnap-prepare", info.Env().Undefined(), work,
                            [](Napi::Env env, bool) { return env.Undefined(); });
  });
}

Napi::Value ImageObject::measure(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&] {
    return start_background(
        info.Env(), "kvmsnap-measure", info.Env().Undefined(),
        [image = image(), content = content_](WorkControl&) {
          return (content == nullptr ? whole_content(*image) : *content).stored_bytes();
        },
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
    ImageLayout layout = layout_of(info[0]);
    return Napi::Number::New(info.Env(), static_cast<double>(layout.part_sizes.size()));
  });
}

Napi::Value ImageObject::write(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&]() -> Napi::Value {
    ImageLayout layout = layout_of(info[0]);
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
        [writer, durable, views = memory_.views, content = content_](WorkControl& control) {
          std::vector<WrittenPart> parts = writer->run(durable, control);
          return WrittenImage{writer->layout(), std::move(parts), content};
        },
        from_written);
  });
}

Napi::Value ImageObject::share(const Napi::CallbackInfo& info) {
  return guard(info.Env(),
               [&] { return wrap(info.Env(), {.image = image(), .views = {}}, content_); });
}

ImageLayout ImageObject::layout_of(const Napi::Value& part_size) const {
  const std::shared_ptr<const Image>& whole = image();
  return lay_out(content_ == nullptr ? whole_content(*whole) : *content_,
                 to_uint64(part_size, "partSize"));
}

void ImageObject::close(const Napi::CallbackInfo&) {
  memory_ = {};
  content_ = nullptr;
}

}  // namespace kvmsnap
