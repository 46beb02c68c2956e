#pragma once

#include <cstddef>

#include "devices/device.h"
#include "devices/serial_state.h"

namespace kvmsnap {

/// A 16550A UART wired as COM1 of a PC (National Semiconductor PC16550D data sheet). Transmission
/// takes no time and the host's line has no errors. The character timeout is immediate: with the
/// FIFO on, characters below the trigger level interrupt as a timeout.
class Serial final : public ByteWideDevice {
 public:
  using State = SerialState;
  static constexpr const char* kName = "serial";
  static constexpr uint16_t kPort = 0x3F8;
  static constexpr uint16_t kPortCount = 8;
  static constexpr uint32_t kIrq = 4;

  /// Throws std::invalid_argument, naming the field, for a state that no 16550A can be in.
  static void validate(const State& state);

  /// Validates `state`. Signals no interrupt: one that was signalled before the save is in the
  /// irqchip's state.
  Serial(const State& state, IrqLine& irq, ByteSink& output);

  State state() const { return state_; }

  /// How many characters `receive` would take now. None in loopback mode, which disconnects the
  /// line: characters wait at the host instead of getting lost.
  size_t receive_room() const;
  /// Takes characters from the line, as many as there is room for; returns how many.
  size_t receive(std::span<const uint8_t> bytes);

 protected:
  uint8_t read_register(uint32_t offset) override;
  void write_register(uint32_t offset, uint8_t value) override;

 private:
  bool fifo_enabled() const;
  bool loopback() const;
  size_t rx_capacity() const;
  /// IIR[3:0] of the pending interrupt of highest priority among those `enabled` as in IER.
  uint8_t interrupt_id(uint8_t enabled) const;
  /// The INTR pin behind the gate that OUT2 opens.
  bool interrupt_line() const;
  /// The same, were the interrupts of these IER bits not pending.
  bool interrupt_line_without(uint8_t sources) const;
  /// Signals an edge when the line rises above its level before a change.
  void signal_rise(bool was_high);

  uint8_t read_rbr();
  uint8_t read_iir();
  uint8_t read_lsr();
  uint8_t read_msr();
  void write_thr(uint8_t value);
  void write_ier(uint8_t value);
  void write_fcr(uint8_t value);
  void write_mcr(uint8_t value);
  void clear_rx();
  void push_rx(uint8_t value);

  State state_;
  IrqLine& irq_;
  ByteSink& output_;
};

}  // namespace kvmsnap
