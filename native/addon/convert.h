// Checked conversions of JavaScript values. Types and ranges only: what they mean is checked where
// they are used.
#pragma once

#include <napi.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace kvmsnap {

/// An integer from 0 to 2^53.
uint64_t whole_uint64(double number, const char* name);
uint32_t whole_uint32(double number, const char* name);
uint64_t to_uint64(const Napi::Value& value, const char* name);
/// Bytes that one call copies to JavaScript: at most 1 GiB.
uint64_t to_copy_length(const Napi::Value& value, const char* name);
uint32_t to_uint32(const Napi::Value& value, const char* name);
/// A bigint from 0 to 2^64 - 1.
uint64_t to_address(const Napi::Value& value, const char* name);
bool to_bool(const Napi::Value& value, const char* name);
/// A view of a Uint8Array's bytes: valid until JavaScript runs again.
std::span<const uint8_t> to_bytes_view(const Napi::Value& value, const char* name);
/// The same of a Float64Array's numbers.
std::span<const double> to_doubles_view(const Napi::Value& value, const char* name);
std::vector<uint8_t> to_bytes_copy(const Napi::Value& value, const char* name);
Napi::Object to_object(const Napi::Value& value, const char* name);
Napi::Array to_array(const Napi::Value& value, const char* name);
Napi::Function to_function(const Napi::Value& value, const char* name);

/// A Buffer with a copy.
Napi::Value from_bytes(Napi::Env env, std::span<const uint8_t> bytes);
Napi::Value from_address(Napi::Env env, uint64_t address);
template <typename Struct>
Napi::Value from_struct(Napi::Env env, const Struct& value) {
  return from_bytes(env, {reinterpret_cast<const uint8_t*>(&value), sizeof value});
}

}  // namespace kvmsnap
