#pragma once

#include "devices/acpi_power_state.h"
#include "devices/device.h"

namespace kvmsnap {

/// Sleep control (offset 0) and sleep status (offset 1) of hardware-reduced ACPI (ACPI 6.5,
/// section 4.8.3.7). Entering S5 powers the machine off; it has no other sleep state, so other
/// types are remembered and do nothing.
///
/// At `kResetOffset` is the reset control register of PIIX and ICH chipsets (82371AB datasheet,
/// 4.1.4), which ACPI and operating systems know at port 0xCF9: a write with bit 2 set resets the
/// machine, whatever kind of reset bits 1 and 3 ask for. It remembers nothing, and reads as 0.
class AcpiPower final : public ByteWideDevice {
 public:
  using State = AcpiPowerState;
  static constexpr const char* kName = "acpi_power";
  static constexpr uint16_t kPort = 0x600;
  static constexpr uint16_t kPortCount = 2;
  static constexpr uint16_t kResetPort = 0xCF9;
  /// Beyond what an access to the sleep registers reaches.
  static constexpr uint16_t kResetOffset = 8;
  /// SLP_TYPx of S5: what the DSDT's _S5 package must say.
  static constexpr uint8_t kSleepTypeS5 = 5;

  /// Throws std::invalid_argument, naming the field, for a state the registers cannot hold.
  static void validate(const State& state);

  AcpiPower(const State& state, StopSink& stop);

  State state() const { return state_; }

 protected:
  uint8_t read_register(uint32_t offset) override;
  void write_register(uint32_t offset, uint8_t value) override;

 private:
  State state_;
  StopSink& stop_;
};

}  // namespace kvmsnap
