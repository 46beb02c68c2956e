// Writing a NativeImage to files: how much it is, how it lies in them, its checksums.
#include <fcntl.h>

#include <algorithm>

#include "addon/background.h"
#include "addon/convert.h"
#include "addon/image_object.h"
#include "addon/sha256.h"
#include "memory/image_layout.h"

namespace kvmsnap {

Napi::Value from_checksums(Napi::Env env, const WrittenPart& part) {
  auto checksums = Napi::Uint32Array::New(env, part.crc32c.size());
  std::copy(part.crc32c.begin(), part.crc32c.end(), checksums.Data());
  return checksums;
}

namespace {

struct WrittenImage {
  ImageLayout layout;
  std::vector<WrittenPart> parts;
  std::shared_ptr<const Content> content;
};

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
    auto writer = std::make_shared<ImageWriter>(image(), std::move(layout), std::move(files),
                                                make_sha256, content_ == nullptr);
    return start_background(
        info.Env(), "kvmsnap-write", options.Get("progress"),
        [writer, durable, views = memory_.views, content = content_](WorkControl& control) {
          std::vector<WrittenPart> parts = writer->run(durable, control);
          return WrittenImage{writer->layout(), std::move(parts), content};
        },
        from_written);
  });
}

ImageLayout ImageObject::layout_of(const Napi::Value& part_size) const {
  const std::shared_ptr<const Image>& whole = image();
  return lay_out(content_ == nullptr ? whole_content(*whole) : *content_,
                 to_uint64(part_size, "partSize"));
}

}  // namespace kvmsnap
