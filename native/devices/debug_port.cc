#include "devices/debug_port.h"

#include <algorithm>

namespace kvmsnap {

DebugPort::DebugPort(const State&, ByteSink& output) : output_(output) {}

void DebugPort::read(uint16_t, std::span<uint8_t> data) {
  std::fill(data.begin(), data.end(), static_cast<uint8_t>(kPort));
}

void DebugPort::write(uint16_t, std::span<const uint8_t> data) { output_.write(data); }

}  // namespace kvmsnap
