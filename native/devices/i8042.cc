#include "devices/i8042.h"

#include <stdexcept>

namespace kvmsnap {
namespace {

constexpr uint8_t kStatusOutputFull = 0x01;
constexpr uint8_t kStatusSystemFlag = 0x04;
constexpr uint8_t kStatusCommand = 0x08;
constexpr uint8_t kStatusUnlocked = 0x10;
constexpr uint8_t kStatusTimeout = 0x40;

constexpr uint8_t kReadCommandByte = 0x20;
constexpr uint8_t kWriteCommandByte = 0x60;
constexpr uint8_t kDisableAux = 0xA7;
constexpr uint8_t kEnableAux = 0xA8;
constexpr uint8_t kTestAux = 0xA9;
constexpr uint8_t kSelfTest = 0xAA;
constexpr uint8_t kTestKeyboard = 0xAB;
constexpr uint8_t kDisableKeyboard = 0xAD;
constexpr uint8_t kEnableKeyboard = 0xAE;
constexpr uint8_t kReadInputPort = 0xC0;
constexpr uint8_t kReadOutputPort = 0xD0;
constexpr uint8_t kWriteOutputPort = 0xD1;
constexpr uint8_t kWriteKeyboardBuffer = 0xD2;
constexpr uint8_t kWriteAuxBuffer = 0xD3;
constexpr uint8_t kWriteAuxDevice = 0xD4;

constexpr uint8_t kSelfTestPassed = 0x55;
constexpr uint8_t kTestPassed = 0x00;
constexpr uint8_t kClockStuckLow = 0x01;
constexpr uint8_t kResend = 0xFE;
// Keyboard not inhibited by a key lock (7), no manufacturing jumper (5).
constexpr uint8_t kInputPort = 0xA0;

constexpr uint8_t kByteInterrupt = 0x01;
constexpr uint8_t kByteSystemFlag = 0x04;
constexpr uint8_t kByteDisableKeyboard = 0x10;
constexpr uint8_t kByteDisableAux = 0x20;
constexpr uint8_t kByteMask = 0x7F;

constexpr uint8_t kPortNotReset = 0x01;

constexpr uint8_t kUndriven = 0xFF;

bool takes_data(uint8_t command) {
  switch (command) {
    case kWriteCommandByte:
    case kWriteOutputPort:
    case kWriteKeyboardBuffer:
    case kWriteAuxBuffer:
    case kWriteAuxDevice:
      return true;
    default:
      return false;
  }
}

// Commands 0xF0 to 0xFF pulse low those of output port bits 3:0 that are 0 in the command.
bool pulses_reset(uint8_t command) {
  return (command & 0xF0) == 0xF0 && !(command & kPortNotReset);
}

}  // namespace

void I8042::validate(const State& state) {
  if (state.command_byte & ~kByteMask) {
    throw std::invalid_argument("i8042: command_byte has reserved bits");
  }
  if (!(state.output_port & kPortNotReset)) {
    throw std::invalid_argument("i8042: output_port holds the machine in reset");
  }
  if (state.pending_command != 0 && !takes_data(state.pending_command)) {
    throw std::invalid_argument("i8042: pending_command takes no data");
  }
  if (state.timeout && !state.output_full) {
    throw std::invalid_argument("i8042: timeout is set with the output buffer empty");
  }
}

I8042::I8042(const State& state, IrqLine& irq, StopSink& stop)
    : state_(state), irq_(irq), stop_(stop) {
  validate(state);
}

uint8_t I8042::read_register(uint32_t offset) {
  switch (offset) {
    case kDataOffset:
      return read_data();
    case kCommandOffset:
      return status();
    default:
      return kUndriven;
  }
}

void I8042::write_register(uint32_t offset, uint8_t value) {
  switch (offset) {
    case kDataOffset:
      state_.last_write_command = false;
      write_data(value);
      break;
    case kCommandOffset:
      state_.last_write_command = true;
      run_command(value);
      break;
    default:
      break;
  }
}

uint8_t I8042::read_data() {
  state_.output_full = false;
  state_.timeout = false;
  return state_.output_buffer;
}

uint8_t I8042::status() const {
  uint8_t status = kStatusUnlocked;
  if (state_.output_full) status |= kStatusOutputFull;
  if (state_.command_byte & kByteSystemFlag) status |= kStatusSystemFlag;
  if (state_.last_write_command) status |= kStatusCommand;
  if (state_.timeout) status |= kStatusTimeout;
  return status;
}

void I8042::run_command(uint8_t command) {
  state_.pending_command = takes_data(command) ? command : 0;
  switch (command) {
    case kReadCommandByte:
      answer(state_.command_byte);
      break;
    case kDisableAux:
      state_.command_byte |= kByteDisableAux;
      break;
    case kEnableAux:
      state_.command_byte &= ~kByteDisableAux;
      break;
    case kTestAux:
      // There is no auxiliary port, which a driver takes from a failed test.
      answer(kClockStuckLow);
      break;
    case kSelfTest:
      // The self-test ends with both devices disabled and the system flag set.
      state_.command_byte = kByteDisableKeyboard | kByteDisableAux | kByteSystemFlag;
      answer(kSelfTestPassed);
      break;
    case kTestKeyboard:
      answer(kTestPassed);
      break;
    case kDisableKeyboard:
      state_.command_byte |= kByteDisableKeyboard;
      break;
    case kEnableKeyboard:
      state_.command_byte &= ~kByteDisableKeyboard;
      break;
    case kReadInputPort:
      answer(kInputPort);
      break;
    case kReadOutputPort:
      answer(state_.output_port);
      break;
    default:
      if (pulses_reset(command)) reset_machine();
      break;
  }
}

void I8042::write_data(uint8_t value) {
  const uint8_t command = state_.pending_command;
  state_.pending_command = 0;
  switch (command) {
    case kWriteCommandByte:
      state_.command_byte = value & kByteMask;
      break;
    case kWriteOutputPort:
      write_output_port(value);
      break;
    case kWriteKeyboardBuffer:
    // Without an auxiliary port the byte comes back as the keyboard's, which is how a driver
    // learns that there is none.
    case kWriteAuxBuffer:
      answer(value);
      break;
    default:
      // A byte for the keyboard or the mouse: writing to the keyboard enables it, nobody answers,
      // and the controller reports that the transmission timed out.
      if (command != kWriteAuxDevice) state_.command_byte &= ~kByteDisableKeyboard;
      answer(kResend, true);
      break;
  }
}

void I8042::write_output_port(uint8_t value) {
  // The reset line is an output that ends the machine before anyone could read it back as 0.
  state_.output_port = value | kPortNotReset;
  if (!(value & kPortNotReset)) reset_machine();
}

void I8042::answer(uint8_t value, bool timeout) {
  const bool was_full = state_.output_full;
  state_.output_buffer = value;
  state_.output_full = true;
  state_.timeout = timeout;
  // IRQ 1 is the output-buffer-full line: it rises only when the buffer was empty.
  if (!was_full && (state_.command_byte & kByteInterrupt)) irq_.pulse();
}

void I8042::reset_machine() { stop_.stop(StopReason::Reset, 0); }

}  // namespace kvmsnap
