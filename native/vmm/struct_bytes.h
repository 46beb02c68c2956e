// Kernel structs as the bytes in which a state holds them.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "kvm/error.h"

namespace kvmsnap {

template <typename T>
std::vector<uint8_t> to_bytes(const T& value) {
  const uint8_t* bytes = reinterpret_cast<const uint8_t*>(&value);
  return {bytes, bytes + sizeof value};
}

template <typename T>
std::vector<uint8_t> to_bytes(const std::vector<T>& values) {
  const uint8_t* bytes = reinterpret_cast<const uint8_t*>(values.data());
  return {bytes, bytes + values.size() * sizeof(T)};
}

[[noreturn]] inline void wrong_length(const char* name, size_t got, size_t wanted) {
  throw Error("ERR_INVALID_ARGUMENT", std::string(name) + " has " + std::to_string(got) +
                                          " bytes where KVM's struct has " +
                                          std::to_string(wanted));
}

template <typename T>
T to_struct(std::span<const uint8_t> bytes, const char* name) {
  if (bytes.size() != sizeof(T)) wrong_length(name, bytes.size(), sizeof(T));
  T value;
  std::memcpy(&value, bytes.data(), sizeof value);
  return value;
}

template <typename T>
std::vector<T> to_array(std::span<const uint8_t> bytes, const char* name) {
  // 4096 is beyond what any KVM has, and what the kernel's own limits allow.
  if (bytes.size() % sizeof(T) != 0 || bytes.size() / sizeof(T) > 4096) {
    wrong_length(name, bytes.size(), sizeof(T));
  }
  std::vector<T> values(bytes.size() / sizeof(T));
  if (!values.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

}  // namespace kvmsnap
