#include "devices/exit_port.h"

#include <algorithm>

namespace kvmsnap {

ExitPort::ExitPort(const State&, StopSink& stop) : stop_(stop) {}

void ExitPort::read(uint16_t, std::span<uint8_t> data) {
  std::fill(data.begin(), data.end(), uint8_t{0xFF});
}

void ExitPort::write(uint16_t, std::span<const uint8_t> data) {
  uint32_t code = 0;
  for (size_t i = 0; i < std::min(data.size(), sizeof(code)); ++i) {
    code |= static_cast<uint32_t>(data[i]) << (8 * i);
  }
  stop_.stop(StopReason::ExitPort, code);
}

}  // namespace kvmsnap
