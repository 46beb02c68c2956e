#include "addon/files.h"

#include <fcntl.h>

#include "addon/background.h"
#include "addon/convert.h"
#include "addon/environment.h"
#include "addon/image_object.h"
#include "addon/sha256.h"

namespace kvmsnap {

namespace {

// What a memory index may have.
constexpr uint64_t kLargestChunk = 1 << 30;

std::vector<GpaRange> to_ranges(const Napi::Value& value) {
  Napi::Array array = to_array(value, "regions");
  std::vector<GpaRange> ranges;
  for (uint32_t i = 0; i < array.Length(); i++) {
    Napi::Object range = to_object(array.Get(i), "a region");
    ranges.push_back({to_address(range.Get("gpa"), "gpa"), to_uint64(range.Get("size"), "size")});
  }
  return ranges;
}

// Four numbers each: one pass over memory, where an object each costs a microsecond.
std::vector<Extent> to_extents(const Napi::Value& value) {
  std::span<const double> numbers = to_doubles_view(value, "extents");
  if (numbers.size() % 4 != 0) {
    throw Error("ERR_INVALID_ARGUMENT", "extents must have four numbers for each");
  }
  std::vector<Extent> extents;
  extents.reserve(numbers.size() / 4);
  for (; !numbers.empty(); numbers = numbers.subspan(4)) {
    extents.push_back({.file = whole_uint32(numbers[3], "file"),
                       .gpa = whole_uint64(numbers[0], "gpa"),
                       .length = whole_uint64(numbers[1], "length"),
                       .offset = whole_uint64(numbers[2], "offset")});
  }
  return extents;
}

// Null for a file that nothing is known of.
std::shared_ptr<const ChunkSums> to_sums(const Napi::Value& value) {
  if (value.IsUndefined()) return nullptr;
  Napi::Object object = to_object(value, "checksums");
  Napi::Value words = object.Get("crc32c");
  if (!words.IsTypedArray() || words.As<Napi::TypedArray>().TypedArrayType() != napi_uint32_array) {
    throw Error("ERR_INVALID_ARGUMENT", "crc32c must be a Uint32Array");
  }
  auto array = words.As<Napi::Uint32Array>();
  ChunkSums sums = {.chunk = to_uint64(object.Get("chunkSize"), "chunkSize"), .crc32c = {}};
  sums.crc32c.assign(array.Data(), array.Data() + array.ElementLength());
  return std::make_shared<const ChunkSums>(std::move(sums));
}

}  // namespace

Napi::Value image_from_files(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&]() -> Napi::Value {
    Napi::Array fds = to_array(info[0], "fds");
    bool named = !info[3].IsUndefined();
    Napi::Array digests = named ? to_array(info[3], "digests") : Napi::Array::New(info.Env());
    bool checked = !info[4].IsUndefined();
    Napi::Array sums = checked ? to_array(info[4], "checksums") : Napi::Array::New(info.Env());
    std::vector<std::shared_ptr<const BackingFile>> files;
    for (uint32_t i = 0; i < fds.Length(); i++) {
      std::string digest = named ? digests.Get(i).ToString().Utf8Value() : std::string();
      files.push_back(BackingFile::duplicate(static_cast<int>(to_uint32(fds.Get(i), "fds")), digest,
                                             to_sums(sums.Get(i))));
    }
    auto image = std::make_shared<Image>(to_ranges(info[1]), std::move(files), to_extents(info[2]));
    for (uint32_t i = fds.Length(); i < digests.Length(); i++) {
      image->add_ancestor(BackingFile::id_of(digests.Get(i).ToString().Utf8Value()));
    }
    return ImageObject::wrap(
        info.Env(), {.memory = {.image = std::move(image), .views = {}}, .content = nullptr});
  });
}

Napi::Value digest_file_in_background(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&]() -> Napi::Value {
    UniqueFd fd(::fcntl(static_cast<int>(to_uint32(info[0], "fd")), F_DUPFD_CLOEXEC, 3));
    if (!fd) throw_system("fcntl");
    uint64_t chunk = to_uint64(info[1], "chunkSize");
    if (chunk == 0 || chunk > kLargestChunk) {
      throw Error("ERR_INVALID_ARGUMENT", "chunkSize must be 1 byte to 1 GiB");
    }
    auto file = std::make_shared<UniqueFd>(std::move(fd));
    return start_background(
        info.Env(), "kvmsnap-digest", info[2],
        [file, chunk](WorkControl& control) {
          return digest_file(file->get(), chunk, make_sha256, control);
        },
        [](Napi::Env env, const WrittenPart& digested) -> Napi::Value {
          Napi::Object result = Napi::Object::New(env);
          result["sha256"] = from_bytes(env, digested.sha256);
          result["crc32c"] = from_checksums(env, digested);
          result["size"] = static_cast<double>(digested.size);
          return result;
        });
  });
}

}  // namespace kvmsnap
