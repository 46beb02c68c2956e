#pragma once

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

#include "test/devices/harness.h"

namespace kvmsnap::test {

inline void check(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "property violated: %s\n", what);
  std::abort();
}

/// Runs `input` as operations on a device and, from a point that its first byte chooses, on a copy
/// restored from its state as well. Aborts when a reachable state is invalid, or the two differ.
template <typename Device>
int fuzz_device(std::span<const uint8_t> input) {
  if (input.empty()) return 0;
  const size_t split = input[0];
  input = input.subspan(1);

  Harness<Device> original;
  const auto next = [&input] {
    const Op op = Op::decode(input.first<Op::kEncodedSize>());
    input = input.subspan(Op::kEncodedSize);
    return op;
  };
  for (size_t i = 0; i < split && input.size() >= Op::kEncodedSize; ++i) {
    original.run(next());
    Device::validate(original.device.state());
  }
  Harness<Device> copy(original.device.state(), original.around.clock.time);
  check(copy.device.state() == original.device.state(), "restoring a state changes it");
  check(copy.around.trace.empty(), "restoring a state has effects outside");
  original.around.trace.clear();
  while (input.size() >= Op::kEncodedSize) {
    const Op op = next();
    original.run(op);
    copy.run(op);
    Device::validate(original.device.state());
    check(copy.around.trace == original.around.trace, "a restored copy acts differently");
    check(copy.device.state() == original.device.state(), "a restored copy gets another state");
    original.around.trace.clear();
    copy.around.trace.clear();
  }
  return 0;
}

inline void skip(std::span<const uint8_t>& input, size_t count) {
  input = input.subspan(std::min(count, input.size()));
}

/// Starts a device with fields of its state taken from `input`. The state is refused with
/// std::invalid_argument, or whatever operations follow lead to valid states.
template <typename Device>
int fuzz_state(std::span<const uint8_t> input) {
  typename Device::State state;
  for_each_field(state, [&input](const char*, auto& field) {
    // Most fields stay as they are: a state that is random all over is hardly ever valid.
    if (input.size() < 1 + sizeof(field) || input[0] % 4 != 0) return skip(input, 1);
    skip(input, 1);
    if constexpr (std::is_same_v<std::remove_reference_t<decltype(field)>, bool>) {
      field = input[0] & 1;
    } else {
      std::memcpy(&field, input.data(), sizeof(field));
    }
    skip(input, sizeof(field));
  });
  try {
    Device::validate(state);
  } catch (const std::invalid_argument&) {
    return 0;
  }
  Harness<Device> device(state);
  while (input.size() >= Op::kEncodedSize) {
    device.run(Op::decode(input.first<Op::kEncodedSize>()));
    Device::validate(device.device.state());
    input = input.subspan(Op::kEncodedSize);
  }
  return 0;
}

/// One fuzz target for both: the first byte chooses.
template <typename Device>
int fuzz(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::span<const uint8_t> rest(data + 1, size - 1);
  return data[0] % 2 == 0 ? fuzz_device<Device>(rest) : fuzz_state<Device>(rest);
}

}  // namespace kvmsnap::test
