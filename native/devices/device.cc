#include "devices/device.h"

namespace kvmsnap {

void ByteWideDevice::read(uint16_t offset, std::span<uint8_t> data) {
  uint32_t reg = offset;
  for (uint8_t& byte : data) byte = read_register(reg++);
}

void ByteWideDevice::write(uint16_t offset, std::span<const uint8_t> data) {
  uint32_t reg = offset;
  for (uint8_t byte : data) write_register(reg++, byte);
}

}  // namespace kvmsnap
