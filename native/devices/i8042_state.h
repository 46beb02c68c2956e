#pragma once

#include <cstdint>
#include <type_traits>

namespace kvmsnap {

/// Registers of an 8042 keyboard controller (IBM Personal System/2 Hardware Interface Technical
/// Reference, Keyboard and Auxiliary Device Controller). The default is the controller as a BIOS
/// leaves it: tested, and the keyboard disabled.
struct I8042State {
  /// Command byte: keyboard interrupt (0), auxiliary interrupt (1), system flag (2), disable
  /// keyboard (4), disable auxiliary (5), translate (6).
  uint8_t command_byte = 0x34;
  /// Output port: system reset, active low (0), A20 gate (1), auxiliary lines (3:2), output
  /// buffer full interrupts (5:4), keyboard lines (7:6).
  uint8_t output_port = 0x03;
  /// The byte at port 0x60; stays there after it was read.
  uint8_t output_buffer = 0;
  /// The command that waits for its data byte, or 0.
  uint8_t pending_command = 0;
  /// Status bit 0: `output_buffer` was not read yet.
  bool output_full = false;
  /// Status bit 3: the last write was to port 0x64.
  bool last_write_command = false;
  /// Status bit 6: the keyboard did not answer.
  bool timeout = false;

  bool operator==(const I8042State&) const = default;
};

/// Calls `visit(name, field)` for each field in declaration order. Names are those of the snapshot
/// format: added to, never renamed.
template <typename State, typename Visit>
requires std::is_same_v<std::remove_const_t<State>, I8042State>
void for_each_field(State& state, Visit&& visit) {
  visit("command_byte", state.command_byte);
  visit("output_port", state.output_port);
  visit("output_buffer", state.output_buffer);
  visit("pending_command", state.pending_command);
  visit("output_full", state.output_full);
  visit("last_write_command", state.last_write_command);
  visit("timeout", state.timeout);
}

}  // namespace kvmsnap
