#pragma once

#include "devices/device.h"
#include "devices/i8042_state.h"

namespace kvmsnap {

/// An 8042 keyboard controller with neither keyboard nor mouse attached (IBM Personal System/2
/// Hardware Interface Technical Reference). Guests reset the machine with it: command 0xFE, or a
/// 0 in bit 0 of the output port. Every command that has an answer gets it at once, so that a
/// probing driver never waits for a timeout of its own.
class I8042 final : public ByteWideDevice {
 public:
  using State = I8042State;
  static constexpr const char* kName = "i8042";
  /// Offset 0 is the data port (0x60), offset 4 command and status (0x64). The ports between
  /// belong to others: register the two alone.
  static constexpr uint16_t kPort = 0x60;
  static constexpr uint16_t kDataOffset = 0;
  static constexpr uint16_t kCommandOffset = 4;
  static constexpr uint32_t kIrq = 1;

  /// Throws std::invalid_argument, naming the field, for a state the controller cannot be in.
  static void validate(const State& state);

  /// Validates `state`; signals nothing.
  I8042(const State& state, IrqLine& irq, StopSink& stop);

  State state() const { return state_; }

 protected:
  uint8_t read_register(uint32_t offset) override;
  void write_register(uint32_t offset, uint8_t value) override;

 private:
  uint8_t read_data();
  uint8_t status() const;
  void run_command(uint8_t command);
  void write_data(uint8_t value);
  void write_output_port(uint8_t value);
  /// Answers a controller command. Interrupts like a byte from the keyboard.
  void answer(uint8_t value, bool timeout = false);
  void reset_machine();

  State state_;
  IrqLine& irq_;
  StopSink& stop_;
};

}  // namespace kvmsnap
