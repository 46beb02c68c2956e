#pragma once

#include "devices/device.h"
#include "devices/exit_port_state.h"

namespace kvmsnap {

/// A port that ends the machine: the byte, word or dword written to it is the exit code, as an
/// unsigned number. Reads give ones.
class ExitPort final : public BusDevice {
 public:
  using State = ExitPortState;
  static constexpr const char* kName = "exit_port";
  /// Where machines have it unless configured otherwise.
  static constexpr uint16_t kDefaultPort = 0xF4;
  static constexpr uint16_t kPortCount = 1;

  static void validate(const State&) {}

  ExitPort(const State& state, StopSink& stop);

  State state() const { return {}; }

  void read(uint16_t offset, std::span<uint8_t> data) override;
  void write(uint16_t offset, std::span<const uint8_t> data) override;

 private:
  StopSink& stop_;
};

}  // namespace kvmsnap
