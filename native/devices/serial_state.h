#pragma once

#include <array>
#include <cstdint>
#include <type_traits>

namespace kvmsnap {

/// Registers of a 16550A UART (National Semiconductor PC16550D data sheet, section 8). The default
/// is the chip after master reset (table II there), at 9600 baud, with a terminal connected.
struct SerialState {
  /// IER: ERBFI (0), ETBEI (1), ELSI (2), EDSSI (3).
  uint8_t ier = 0;
  /// FCR as last programmed: FIFO enable (0), DMA mode (3), receiver trigger (7:6). The reset
  /// bits (1, 2) clear themselves.
  uint8_t fcr = 0;
  /// LCR: word length (1:0), stop bits (2), parity (5:3), break (6), DLAB (7).
  uint8_t lcr = 0;
  /// MCR: DTR (0), RTS (1), OUT1 (2), OUT2 (3), loop (4).
  uint8_t mcr = 0;
  /// MSR: DCTS (0), DDSR (1), TERI (2), DDCD (3), CTS (4), DSR (5), RI (6), DCD (7).
  uint8_t msr = 0xB0;
  /// SCR, the scratch register.
  uint8_t scr = 0;
  /// DLL (low byte) and DLM (high byte). Kept, never acted upon: transmission takes no time.
  uint16_t divisor = 12;
  /// LSR.OE (1): a received character was lost. The other bits of LSR follow from `rx_count`, or
  /// never change: the transmitter is always empty, and the line has no errors.
  bool overrun = false;
  /// The THRE interrupt, latched when THR empties or ETBEI is set, cleared by the read of IIR that
  /// reports it or by a write of THR.
  bool thre_pending = false;
  /// Characters in the receiver FIFO: 0 to 16, or 0 to 1 (RBR) while the FIFO is off.
  uint8_t rx_count = 0;
  /// The receiver FIFO, oldest first; zero from `rx_count` on.
  std::array<uint8_t, 16> rx_fifo{};

  bool operator==(const SerialState&) const = default;
};

/// Calls `visit(name, field)` for each field in declaration order. Names are those of the snapshot
/// format: added to, never renamed.
template <typename State, typename Visit>
requires std::is_same_v<std::remove_const_t<State>, SerialState>
void for_each_field(State& state, Visit&& visit) {
  visit("ier", state.ier);
  visit("fcr", state.fcr);
  visit("lcr", state.lcr);
  visit("mcr", state.mcr);
  visit("msr", state.msr);
  visit("scr", state.scr);
  visit("divisor", state.divisor);
  visit("overrun", state.overrun);
  visit("thre_pending", state.thre_pending);
  visit("rx_count", state.rx_count);
  visit("rx_fifo", state.rx_fifo);
}

}  // namespace kvmsnap
