#include "devices/serial.h"

#include <algorithm>
#include <stdexcept>

namespace kvmsnap {
namespace {

// Register offsets; 0 and 1 are the divisor while LCR.DLAB is set.
enum : uint32_t { kRbrThr, kIer, kIirFcr, kLcr, kMcr, kLsr, kMsr, kScr };

constexpr uint8_t kIerReceived = 0x01;
constexpr uint8_t kIerThrEmpty = 0x02;
constexpr uint8_t kIerLineStatus = 0x04;
constexpr uint8_t kIerModemStatus = 0x08;
constexpr uint8_t kIerMask = 0x0F;

constexpr uint8_t kIirNone = 0x01;
constexpr uint8_t kIirModemStatus = 0x00;
constexpr uint8_t kIirThrEmpty = 0x02;
constexpr uint8_t kIirReceived = 0x04;
constexpr uint8_t kIirLineStatus = 0x06;
constexpr uint8_t kIirTimeout = 0x0C;
constexpr uint8_t kIirFifoEnabled = 0xC0;

constexpr uint8_t kFcrEnable = 0x01;
constexpr uint8_t kFcrResetReceiver = 0x02;
constexpr uint8_t kFcrKept = 0xC9;

constexpr uint8_t kLcrDlab = 0x80;

constexpr uint8_t kMcrDtr = 0x01;
constexpr uint8_t kMcrRts = 0x02;
constexpr uint8_t kMcrOut1 = 0x04;
constexpr uint8_t kMcrOut2 = 0x08;
constexpr uint8_t kMcrLoop = 0x10;
constexpr uint8_t kMcrMask = 0x1F;

constexpr uint8_t kLsrDataReady = 0x01;
constexpr uint8_t kLsrOverrun = 0x02;
constexpr uint8_t kLsrTransmitterEmpty = 0x60;

constexpr uint8_t kMsrDeltas = 0x0F;
constexpr uint8_t kMsrLines = 0xF0;
constexpr uint8_t kMsrTeri = 0x04;
constexpr uint8_t kMsrCts = 0x10;
constexpr uint8_t kMsrDsr = 0x20;
constexpr uint8_t kMsrRi = 0x40;
constexpr uint8_t kMsrDcd = 0x80;
// The host's end of the line: always there, always ready.
constexpr uint8_t kTerminalLines = kMsrCts | kMsrDsr | kMsrDcd;

constexpr uint8_t kUndriven = 0xFF;

size_t trigger_level(uint8_t fcr) {
  constexpr std::array<size_t, 4> kLevels = {1, 4, 8, 14};
  return kLevels[fcr >> 6];
}

// Data sheet 8.6.7: in loopback, RTS, DTR, OUT1 and OUT2 are the modem inputs.
uint8_t modem_lines(uint8_t mcr) {
  if (!(mcr & kMcrLoop)) return kTerminalLines;
  uint8_t lines = 0;
  if (mcr & kMcrRts) lines |= kMsrCts;
  if (mcr & kMcrDtr) lines |= kMsrDsr;
  if (mcr & kMcrOut1) lines |= kMsrRi;
  if (mcr & kMcrOut2) lines |= kMsrDcd;
  return lines;
}

// Bits 0, 1 and 3 latch a change of CTS, DSR, DCD; bit 2 only the trailing edge of RI.
uint8_t modem_deltas(uint8_t before, uint8_t after) {
  const uint8_t changed = (before ^ after) & kMsrLines & ~kMsrRi;
  uint8_t deltas = changed >> 4;
  if ((before & kMsrRi) && !(after & kMsrRi)) deltas |= kMsrTeri;
  return deltas;
}

void require(bool condition, const char* what) {
  if (!condition) throw std::invalid_argument(what);
}

}  // namespace

void Serial::validate(const State& state) {
  require((state.ier & ~kIerMask) == 0, "serial: ier has reserved bits");
  require((state.fcr & ~kFcrKept) == 0, "serial: fcr has bits that clear themselves");
  require((state.fcr & kFcrEnable) || state.fcr == 0, "serial: fcr is set with the FIFO off");
  require((state.mcr & ~kMcrMask) == 0, "serial: mcr has reserved bits");
  require((state.msr & kMsrLines) == modem_lines(state.mcr),
          "serial: msr has other modem lines than mcr implies");
  const size_t capacity = (state.fcr & kFcrEnable) ? state.rx_fifo.size() : 1;
  require(state.rx_count <= capacity, "serial: rx_count is more than the FIFO holds");
  require(std::all_of(state.rx_fifo.begin() + state.rx_count, state.rx_fifo.end(),
                      [](uint8_t byte) { return byte == 0; }),
          "serial: rx_fifo has characters past rx_count");
}

Serial::Serial(const State& state, IrqLine& irq, ByteSink& output)
    : state_(state), irq_(irq), output_(output) {
  validate(state);
}

bool Serial::fifo_enabled() const { return state_.fcr & kFcrEnable; }
bool Serial::loopback() const { return state_.mcr & kMcrLoop; }
size_t Serial::rx_capacity() const { return fifo_enabled() ? state_.rx_fifo.size() : 1; }

uint8_t Serial::interrupt_id(uint8_t enabled) const {
  if ((enabled & kIerLineStatus) && state_.overrun) return kIirLineStatus;
  if ((enabled & kIerReceived) && state_.rx_count > 0) {
    const bool below = fifo_enabled() && state_.rx_count < trigger_level(state_.fcr);
    return below ? kIirTimeout : kIirReceived;
  }
  if ((enabled & kIerThrEmpty) && state_.thre_pending) return kIirThrEmpty;
  if ((enabled & kIerModemStatus) && (state_.msr & kMsrDeltas)) return kIirModemStatus;
  return kIirNone;
}

bool Serial::interrupt_line_without(uint8_t sources) const {
  // Loopback forces the OUT2 pin inactive whatever MCR says, which closes the gate.
  const bool gate_open = (state_.mcr & kMcrOut2) && !loopback();
  return gate_open && interrupt_id(state_.ier & ~sources) != kIirNone;
}

bool Serial::interrupt_line() const { return interrupt_line_without(0); }

void Serial::signal_rise(bool was_high) {
  if (!was_high && interrupt_line()) irq_.pulse();
}

size_t Serial::receive_room() const { return loopback() ? 0 : rx_capacity() - state_.rx_count; }

size_t Serial::receive(std::span<const uint8_t> bytes) {
  const bool was_high = interrupt_line();
  const size_t taken = std::min(bytes.size(), receive_room());
  std::copy_n(bytes.begin(), taken, state_.rx_fifo.begin() + state_.rx_count);
  state_.rx_count += static_cast<uint8_t>(taken);
  signal_rise(was_high);
  return taken;
}

uint8_t Serial::read_register(uint32_t offset) {
  const bool dlab = state_.lcr & kLcrDlab;
  switch (offset) {
    case kRbrThr:
      return dlab ? static_cast<uint8_t>(state_.divisor) : read_rbr();
    case kIer:
      return dlab ? static_cast<uint8_t>(state_.divisor >> 8) : state_.ier;
    case kIirFcr:
      return read_iir();
    case kLcr:
      return state_.lcr;
    case kMcr:
      return state_.mcr;
    case kLsr:
      return read_lsr();
    case kMsr:
      return read_msr();
    case kScr:
      return state_.scr;
    default:
      return kUndriven;
  }
}

void Serial::write_register(uint32_t offset, uint8_t value) {
  const bool dlab = state_.lcr & kLcrDlab;
  switch (offset) {
    case kRbrThr:
      if (dlab) {
        state_.divisor = static_cast<uint16_t>((state_.divisor & 0xFF00) | value);
      } else {
        write_thr(value);
      }
      break;
    case kIer:
      if (dlab) {
        state_.divisor = static_cast<uint16_t>((state_.divisor & 0x00FF) | (value << 8));
      } else {
        write_ier(value);
      }
      break;
    case kIirFcr:
      write_fcr(value);
      break;
    case kLcr:
      state_.lcr = value;
      break;
    case kMcr:
      write_mcr(value);
      break;
    case kScr:
      state_.scr = value;
      break;
    default:
      break;  // LSR and MSR are for factory tests to write; the data sheet says not to
  }
}

uint8_t Serial::read_rbr() {
  const uint8_t oldest = state_.rx_fifo[0];
  if (state_.rx_count == 0) return oldest;
  std::shift_left(state_.rx_fifo.begin(), state_.rx_fifo.end(), 1);
  state_.rx_fifo.back() = 0;
  --state_.rx_count;
  // A read withdraws the interrupt of a timeout, or of a FIFO that falls below its trigger. What is
  // left times out, here at once: a handler that takes one character at a time gets its next edge.
  if (fifo_enabled() && state_.rx_count < trigger_level(state_.fcr)) {
    signal_rise(interrupt_line_without(kIerReceived));
  }
  return oldest;
}

uint8_t Serial::read_iir() {
  const uint8_t id = interrupt_id(state_.ier);
  if (id == kIirThrEmpty) state_.thre_pending = false;
  return fifo_enabled() ? id | kIirFifoEnabled : id;
}

uint8_t Serial::read_lsr() {
  uint8_t lsr = kLsrTransmitterEmpty;
  if (state_.rx_count > 0) lsr |= kLsrDataReady;
  if (state_.overrun) lsr |= kLsrOverrun;
  state_.overrun = false;
  return lsr;
}

uint8_t Serial::read_msr() {
  const uint8_t msr = state_.msr;
  state_.msr &= kMsrLines;
  return msr;
}

void Serial::write_thr(uint8_t value) {
  // The line falls while THR is full, so that a handler which acknowledges by writing the next
  // character, without reading IIR, gets its next edge.
  state_.thre_pending = false;
  const bool was_high = interrupt_line();
  if (loopback()) {
    push_rx(value);
  } else {
    output_.write({&value, 1});
  }
  state_.thre_pending = true;
  signal_rise(was_high);
}

void Serial::write_ier(uint8_t value) {
  const bool was_high = interrupt_line();
  const uint8_t enabled = value & ~state_.ier;
  state_.ier = value & kIerMask;
  // Enabling ETBEI interrupts at once when THR is empty, and here it always is.
  if (enabled & kIerThrEmpty) state_.thre_pending = true;
  signal_rise(was_high);
}

void Serial::write_fcr(uint8_t value) {
  const bool was_high = interrupt_line();
  const bool toggled = (value ^ state_.fcr) & kFcrEnable;
  // Data sheet 8.5: bit 0 must be 1 for the other bits to be programmed.
  const bool enable = value & kFcrEnable;
  if (toggled || (enable && (value & kFcrResetReceiver))) clear_rx();
  state_.fcr = enable ? value & kFcrKept : 0;
  signal_rise(was_high);
}

void Serial::write_mcr(uint8_t value) {
  const bool was_high = interrupt_line();
  state_.mcr = value & kMcrMask;
  const uint8_t lines = modem_lines(state_.mcr);
  const uint8_t deltas = (state_.msr & kMsrDeltas) | modem_deltas(state_.msr, lines);
  state_.msr = lines | deltas;
  signal_rise(was_high);
}

void Serial::clear_rx() {
  state_.rx_fifo.fill(0);
  state_.rx_count = 0;
}

void Serial::push_rx(uint8_t value) {
  if (state_.rx_count < rx_capacity()) {
    state_.rx_fifo[state_.rx_count++] = value;
    return;
  }
  state_.overrun = true;
  // A full FIFO keeps what it has; without it, RBR takes the new character.
  if (!fifo_enabled()) state_.rx_fifo[0] = value;
}

}  // namespace kvmsnap
