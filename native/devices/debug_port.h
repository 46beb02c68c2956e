#pragma once

#include "devices/debug_port_state.h"
#include "devices/device.h"

namespace kvmsnap {

/// Port 0xE9 of the Bochs emulator: bytes written go to the host; reads give 0xE9, by which a
/// guest detects the port.
class DebugPort final : public BusDevice {
 public:
  using State = DebugPortState;
  static constexpr const char* kName = "debug_port";
  static constexpr uint16_t kPort = 0xE9;
  static constexpr uint16_t kPortCount = 1;

  static void validate(const State&) {}

  DebugPort(const State& state, ByteSink& output);

  State state() const { return {}; }

  void read(uint16_t offset, std::span<uint8_t> data) override;
  /// Every byte of a wider access goes out, lowest first.
  void write(uint16_t offset, std::span<const uint8_t> data) override;

 private:
  ByteSink& output_;
};

}  // namespace kvmsnap
