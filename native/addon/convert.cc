#include "addon/convert.h"

#include <cmath>

#include "kvm/error.h"

namespace kvmsnap {

namespace {

[[noreturn]] void refuse(const char* name, const char* wanted) {
  throw Error("ERR_INVALID_ARGUMENT", std::string(name) + " must be " + wanted);
}

}  // namespace

uint64_t whole_uint64(double number, const char* name) {
  if (!(number >= 0 && number <= 9007199254740992.0) || std::trunc(number) != number) {
    refuse(name, "an integer from 0 to 2^53");
  }
  return static_cast<uint64_t>(number);
}

uint32_t whole_uint32(double number, const char* name) {
  uint64_t whole = whole_uint64(number, name);
  if (whole > UINT32_MAX) refuse(name, "an integer below 2^32");
  return static_cast<uint32_t>(whole);
}

uint64_t to_uint64(const Napi::Value& value, const char* name) {
  if (!value.IsNumber()) refuse(name, "a number");
  return whole_uint64(value.As<Napi::Number>().DoubleValue(), name);
}

uint64_t to_copy_length(const Napi::Value& value, const char* name) {
  uint64_t length = to_uint64(value, name);
  if (length > uint64_t{1} << 30) {
    throw Error("ERR_INVALID_ARGUMENT", "at most 1 GiB can be read at a time");
  }
  return length;
}

uint32_t to_uint32(const Napi::Value& value, const char* name) {
  if (!value.IsNumber()) refuse(name, "a number");
  return whole_uint32(value.As<Napi::Number>().DoubleValue(), name);
}

uint64_t to_address(const Napi::Value& value, const char* name) {
  if (!value.IsBigInt()) refuse(name, "a bigint");
  bool lossless = false;
  uint64_t address = value.As<Napi::BigInt>().Uint64Value(&lossless);
  if (!lossless) refuse(name, "a bigint from 0 to 2^64 - 1");
  return address;
}

bool to_bool(const Napi::Value& value, const char* name) {
  if (!value.IsBoolean()) refuse(name, "true or false");
  return value.As<Napi::Boolean>().Value();
}

std::span<const uint8_t> to_bytes_view(const Napi::Value& value, const char* name) {
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array) {
    refuse(name, "a Uint8Array");
  }
  auto array = value.As<Napi::Uint8Array>();
  return {array.Data(), array.ByteLength()};
}

std::span<const double> to_doubles_view(const Napi::Value& value, const char* name) {
  if (!value.IsTypedArray() ||
      value.As<Napi::TypedArray>().TypedArrayType() != napi_float64_array) {
    refuse(name, "a Float64Array");
  }
  auto array = value.As<Napi::Float64Array>();
  return {array.Data(), array.ElementLength()};
}

std::vector<uint8_t> to_bytes_copy(const Napi::Value& value, const char* name) {
  std::span<const uint8_t> view = to_bytes_view(value, name);
  return {view.begin(), view.end()};
}

Napi::Object to_object(const Napi::Value& value, const char* name) {
  if (!value.IsObject()) refuse(name, "an object");
  return value.As<Napi::Object>();
}

Napi::Array to_array(const Napi::Value& value, const char* name) {
  if (!value.IsArray()) refuse(name, "an array");
  return value.As<Napi::Array>();
}

Napi::Function to_function(const Napi::Value& value, const char* name) {
  if (!value.IsFunction()) refuse(name, "a function");
  return value.As<Napi::Function>();
}

Napi::Value from_bytes(Napi::Env env, std::span<const uint8_t> bytes) {
  return Napi::Buffer<uint8_t>::Copy(env, bytes.data(), bytes.size());
}

Napi::Value from_address(Napi::Env env, uint64_t address) {
  return Napi::BigInt::New(env, address);
}

}  // namespace kvmsnap
