// A device's State as named fields, for whatever carries it: the addon, and so the snapshot.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <map>
#include <string>
#include <type_traits>
#include <variant>
#include <vector>

#include "kvm/error.h"

namespace kvmsnap {

/// Any register is an integer or an array of bytes.
using DeviceField = std::variant<int64_t, std::vector<uint8_t>>;
using DeviceFields = std::map<std::string, DeviceField>;
/// By device name.
using DeviceStates = std::map<std::string, DeviceFields>;

template <typename T>
struct is_byte_array : std::false_type {};
template <size_t N>
struct is_byte_array<std::array<uint8_t, N>> : std::true_type {};

template <typename State>
DeviceFields to_fields(const State& state) {
  DeviceFields fields;
  for_each_field(state, [&](const char* name, const auto& value) {
    using T = std::remove_cvref_t<decltype(value)>;
    if constexpr (is_byte_array<T>::value) {
      fields[name] = std::vector<uint8_t>(value.begin(), value.end());
    } else {
      static_assert(std::is_integral_v<T>);
      fields[name] = static_cast<int64_t>(value);
    }
  });
  return fields;
}

/// Throws ERR_SNAPSHOT_FORMAT, naming the field, when one is missing, of the wrong type or out of
/// its type's range. Whether the values make sense is the device's own check.
template <typename State>
State from_fields(const char* device, const DeviceFields& fields) {
  State state;
  for_each_field(state, [&](const char* name, auto& value) {
    using T = std::remove_cvref_t<decltype(value)>;
    auto refuse = [&](const char* why) {
      throw Error("ERR_SNAPSHOT_FORMAT",
                  std::string("device ") + device + ", field " + name + ": " + why);
    };
    auto field = fields.find(name);
    if (field == fields.end()) return refuse("is missing");
    if constexpr (is_byte_array<T>::value) {
      const auto* bytes = std::get_if<std::vector<uint8_t>>(&field->second);
      if (bytes == nullptr || bytes->size() != value.size()) return refuse("has the wrong length");
      std::copy(bytes->begin(), bytes->end(), value.begin());
    } else {
      const auto* number = std::get_if<int64_t>(&field->second);
      if (number == nullptr || *number < static_cast<int64_t>(std::numeric_limits<T>::min()) ||
          *number > static_cast<int64_t>(std::numeric_limits<T>::max())) {
        return refuse("is out of range");
      }
      value = static_cast<T>(*number);
    }
  });
  return state;
}

}  // namespace kvmsnap
