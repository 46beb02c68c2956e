// Register behaviour of the 16550A, by the PC16550D data sheet.
#include "devices/serial.h"

#include <stdexcept>
#include <string_view>

#include "test/catch.h"
#include "test/devices/harness.h"

using namespace kvmsnap;
using namespace kvmsnap::test;

namespace {

constexpr uint16_t kData = 0, kIer = 1, kIir = 2, kFcr = 2, kLcr = 3, kMcr = 4, kLsr = 5, kMsr = 6,
                   kScr = 7;
constexpr uint8_t kOut2 = 0x08, kLoop = 0x10;
constexpr uint8_t kNone = 0x01, kThrEmpty = 0x02, kReceived = 0x04, kLineStatus = 0x06,
                  kTimeout = 0x0C, kFifoOn = 0xC0;

/// A UART as a driver leaves it: FIFO on with a trigger of 8, interrupts wired.
struct Uart : Harness<Serial> {
  explicit Uart(uint8_t ier = 0, uint8_t fcr = 0x81) {
    write(kFcr, fcr);
    write(kMcr, kOut2 | 0x03);
    write(kIer, ier);
    around.irq.pulses = 0;
  }
  size_t type(std::string_view text) {
    return device.receive({reinterpret_cast<const uint8_t*>(text.data()), text.size()});
  }
  std::string read_all() {
    std::string text;
    while (read(kLsr) & 0x01) text.push_back(static_cast<char>(read(kData)));
    return text;
  }
};

}  // namespace

TEST_CASE("after reset the registers read as the data sheet's table II says") {
  Harness<Serial> uart;
  CHECK(uart.read(kData) == 0);
  CHECK(uart.read(kIer) == 0);
  CHECK(uart.read(kIir) == 0x01);
  CHECK(uart.read(kLcr) == 0);
  CHECK(uart.read(kMcr) == 0);
  CHECK(uart.read(kLsr) == 0x60);
  CHECK(uart.read(kMsr) == 0xB0);
}

TEST_CASE("a written character goes out at once and the transmitter stays empty") {
  Uart uart;
  for (const char c : std::string_view("hello")) uart.write(kData, static_cast<uint8_t>(c));
  CHECK(uart.around.sink.bytes == std::vector<uint8_t>{'h', 'e', 'l', 'l', 'o'});
  CHECK(uart.read(kLsr) == 0x60);
}

TEST_CASE("DLAB turns the first two registers into the divisor and nothing else") {
  Uart uart(0x05);
  uart.write(kLcr, 0x83);
  uart.write(kData, 0x34);
  uart.write(kIer, 0x12);
  CHECK(uart.read(kData) == 0x34);
  CHECK(uart.read(kIer) == 0x12);
  CHECK(uart.device.state().divisor == 0x1234);
  CHECK(uart.read(kIir) == (kNone | kFifoOn));
  uart.write(kLcr, 0x03);
  CHECK(uart.read(kIer) == 0x05);
  CHECK(uart.around.sink.bytes.empty());
}

TEST_CASE("reserved bits of IER and MCR read back as 0") {
  Uart uart;
  uart.write(kIer, 0xFF);
  uart.write(kMcr, 0xFF);
  CHECK(uart.read(kIer) == 0x0F);
  CHECK(uart.read(kMcr) == 0x1F);
}

TEST_CASE("the line takes 16 characters with the FIFO on, 1 with it off") {
  Uart on;
  CHECK(on.device.receive_room() == 16);
  CHECK(on.type("0123456789abcdefXYZ") == 16);
  CHECK(on.device.receive_room() == 0);
  CHECK(on.type("X") == 0);
  CHECK(on.read_all() == "0123456789abcdef");

  Uart off(0, 0);
  CHECK(off.type("ab") == 1);
  CHECK(off.read(kLsr) == 0x61);
  CHECK(off.read(kData) == 'a');
  CHECK(off.read(kLsr) == 0x60);
}

TEST_CASE("received data interrupts at the trigger level, below it as a timeout") {
  const auto [fcr, level] =
      GENERATE(table<uint8_t, size_t>({{0x01, 1}, {0x41, 4}, {0x81, 8}, {0xC1, 14}}));
  Uart uart(0x01, fcr);
  for (size_t i = 1; i < level; ++i) {
    uart.type("x");
    REQUIRE(uart.read(kIir) == (kTimeout | kFifoOn));
  }
  uart.type("x");
  CHECK(uart.read(kIir) == (kReceived | kFifoOn));
  CHECK(uart.around.irq.pulses == 1);
}

TEST_CASE("reading the last character ends the receive interrupt, the next one is an edge") {
  Uart uart(0x01);
  uart.type("a");
  CHECK(uart.around.irq.pulses == 1);
  uart.read(kData);
  CHECK(uart.read(kIir) == (kNone | kFifoOn));
  uart.type("b");
  CHECK(uart.around.irq.pulses == 2);
}

TEST_CASE("a handler that takes one character for each interrupt gets them all") {
  Uart uart(0x01);
  uart.type("abc");
  std::string got;
  for (int handled = 0; handled < uart.around.irq.pulses; ++handled) {
    got.push_back(static_cast<char>(uart.read(kData)));
  }
  CHECK(got == "abc");
  CHECK(uart.around.irq.pulses == 3);
}

TEST_CASE("without the FIFO a received character interrupts as data, never as a timeout") {
  Uart uart(0x01, 0);
  uart.type("a");
  CHECK(uart.read(kIir) == kReceived);
}

TEST_CASE("enabling the THRE interrupt raises it, reading IIR acknowledges it") {
  Uart uart;
  uart.write(kIer, 0x02);
  CHECK(uart.around.irq.pulses == 1);
  CHECK(uart.read(kIir) == (kThrEmpty | kFifoOn));
  CHECK(uart.read(kIir) == (kNone | kFifoOn));
  uart.write(kIer, 0x00);
  uart.write(kIer, 0x02);
  CHECK(uart.around.irq.pulses == 2);
  CHECK(uart.read(kIir) == (kThrEmpty | kFifoOn));
}

TEST_CASE("each character written with the THRE interrupt on is an edge, acknowledged or not") {
  Uart uart(0x02);
  uart.read(kIir);
  uart.write(kData, 'a');
  CHECK(uart.around.irq.pulses == 1);
  uart.write(kData, 'b');
  CHECK(uart.around.irq.pulses == 2);
  CHECK(uart.read(kIir) == (kThrEmpty | kFifoOn));
}

TEST_CASE("reading IIR keeps a THRE interrupt that a higher one hides") {
  Uart uart(0x03);
  uart.type("a");
  CHECK(uart.read(kIir) == (kTimeout | kFifoOn));
  uart.read(kData);
  CHECK(uart.read(kIir) == (kThrEmpty | kFifoOn));
}

TEST_CASE("a second source does not pulse a line that is high already") {
  Uart uart(0x03);
  CHECK(uart.read(kIir) == (kThrEmpty | kFifoOn));
  uart.type("a");
  uart.type("b");
  CHECK(uart.around.irq.pulses == 1);
}

TEST_CASE("OUT2 gates the interrupt, and opening the gate lets a waiting one through") {
  Uart uart(0x01);
  uart.write(kMcr, 0x03);
  uart.type("a");
  CHECK(uart.around.irq.pulses == 0);
  CHECK(uart.read(kIir) == (kTimeout | kFifoOn));
  uart.write(kMcr, 0x0B);
  CHECK(uart.around.irq.pulses == 1);
}

TEST_CASE("loopback feeds the receiver, and disconnects the line and the interrupt") {
  Uart uart(0x01);
  uart.write(kMcr, kLoop | kOut2);
  uart.write(kData, 'L');
  CHECK(uart.around.sink.bytes.empty());
  CHECK(uart.device.receive_room() == 0);
  CHECK(uart.type("x") == 0);
  CHECK(uart.around.irq.pulses == 0);
  CHECK(uart.read_all() == "L");
}

TEST_CASE("loopback shows the MCR outputs as the MSR inputs") {
  const auto [mcr, lines] = GENERATE(table<uint8_t, uint8_t>(
      {{0x00, 0x00}, {0x01, 0x20}, {0x02, 0x10}, {0x04, 0x40}, {0x08, 0x80}, {0x0F, 0xF0}}));
  Uart uart;
  uart.write(kMcr, kLoop | mcr);
  CHECK((uart.read(kMsr) & 0xF0) == lines);
}

TEST_CASE("modem deltas latch until MSR is read, RI counts only when it ends") {
  Uart uart;
  uart.write(kMcr, kLoop | 0x04);
  CHECK(uart.read(kMsr) == 0x4B);
  CHECK(uart.read(kMsr) == 0x40);
  uart.write(kMcr, kLoop);
  CHECK(uart.read(kMsr) == 0x04);
}

TEST_CASE("leaving loopback interrupts for the modem lines that changed") {
  Uart uart(0x08);
  uart.write(kMcr, kLoop);
  uart.write(kMcr, kOut2);
  CHECK(uart.around.irq.pulses == 1);
  CHECK(uart.read(kIir) == (0x00 | kFifoOn));
  uart.read(kMsr);
  CHECK(uart.read(kIir) == (kNone | kFifoOn));
}

TEST_CASE("an overrun keeps a full FIFO, replaces RBR without one, and is read once") {
  Uart on(0x04);
  on.write(kMcr, kLoop);
  for (int i = 0; i < 17; ++i) on.write(kData, static_cast<uint8_t>('a' + i));
  CHECK(on.read(kIir) == (kLineStatus | kFifoOn));
  CHECK(on.read(kLsr) == 0x63);
  CHECK(on.read(kLsr) == 0x61);
  CHECK(on.read_all() == "abcdefghijklmnop");

  Uart off(0, 0);
  off.write(kMcr, kLoop);
  off.write(kData, 'a');
  off.write(kData, 'b');
  CHECK(off.read(kLsr) == 0x63);
  CHECK(off.read(kData) == 'b');
}

TEST_CASE("the receiver is emptied by its reset bit and by switching the FIFO") {
  const uint8_t fcr = GENERATE(as<uint8_t>{}, 0x83, 0x00);
  Uart uart;
  uart.type("abc");
  uart.write(kFcr, fcr);
  CHECK(uart.read(kLsr) == 0x60);
}

TEST_CASE("FCR bits are programmed only together with FIFO enable") {
  Uart uart(0x01, 0);
  uart.write(kFcr, 0xC0);
  CHECK(uart.device.state().fcr == 0);
  uart.type("a");
  uart.write(kFcr, 0x02);
  CHECK(uart.read_all() == "a");
}

TEST_CASE("the registers past SCR and the read-only ones swallow writes") {
  Uart uart;
  const auto before = uart.device.state();
  uart.write(kLsr, 0xFF);
  uart.write(kMsr, 0xFF);
  uart.write(8, 0xFF);
  CHECK(uart.device.state() == before);
  CHECK(uart.read(8) == 0xFF);
  uart.write(kScr, 0x5A);
  CHECK(uart.read(kScr) == 0x5A);
}

TEST_CASE("a restored UART with an interrupt pending does not signal it again") {
  Uart uart(0x01);
  uart.type("a");
  Harness<Serial> copy(uart.device.state());
  CHECK(copy.around.irq.pulses == 0);
  CHECK(copy.read(kIir) == (kTimeout | kFifoOn));
  CHECK(copy.read(kData) == 'a');
}

TEST_CASE("states that no 16550A can be in are refused") {
  const auto [what, spoil] = GENERATE(table<const char*, void (*)(SerialState&)>({
      {"serial: ier has reserved bits", [](SerialState& s) { s.ier = 0x10; }},
      {"serial: fcr has bits that clear themselves", [](SerialState& s) { s.fcr = 0x03; }},
      {"serial: fcr is set with the FIFO off", [](SerialState& s) { s.fcr = 0xC0; }},
      {"serial: mcr has reserved bits", [](SerialState& s) { s.mcr = 0x20; }},
      {"serial: msr has other modem lines than mcr implies", [](SerialState& s) { s.msr = 0; }},
      {"serial: rx_count is more than the FIFO holds", [](SerialState& s) { s.rx_count = 2; }},
      {"serial: rx_count is more than the FIFO holds",
       [](SerialState& s) { s.fcr = 1, s.rx_count = 17; }},
      {"serial: rx_fifo has characters past rx_count", [](SerialState& s) { s.rx_fifo[0] = 1; }},
  }));
  SerialState state;
  spoil(state);
  CHECK_THROWS_WITH(Serial::validate(state), what);
  CHECK_THROWS_AS(Harness<Serial>(state), std::invalid_argument);
}
