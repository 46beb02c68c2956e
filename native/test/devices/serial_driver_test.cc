// The UART as operating systems' drivers use it: probing, and a console with flow in both ways.
#include <deque>
#include <string>

#include "test/catch.h"
#include "test/devices/harness.h"

using namespace kvmsnap;
using namespace kvmsnap::test;

namespace {

constexpr uint16_t kData = 0, kIer = 1, kIir = 2, kFcr = 2, kLcr = 3, kMcr = 4, kLsr = 5, kMsr = 6;
constexpr uint8_t kDataReady = 0x01, kThrEmpty = 0x20, kNoInterrupt = 0x01;

/// An interrupt-driven console driver: takes what is there, sends up to a FIFO's worth for each
/// transmit interrupt, and stops transmit interrupts when it has nothing to send.
class Driver {
 public:
  explicit Driver(Harness<Serial>& uart) : uart_(uart) {
    uart_.write(kFcr, 0x01);
    uart_.write(kFcr, 0x07);
    uart_.write(kFcr, 0x00);
    for (const uint16_t reg : {kLsr, kData, kIir, kMsr}) uart_.read(reg);
    uart_.write(kLcr, 0x03);
    uart_.write(kMcr, 0x0B);
    uart_.write(kFcr, 0x81);
    uart_.write(kIer, 0x05);
  }

  void send(const std::string& text) {
    output_.insert(output_.end(), text.begin(), text.end());
    uart_.write(kIer, 0x07);
  }

  /// Runs the handler once for each edge, as an interrupt controller calls it.
  void take_interrupts() {
    while (handled_ < uart_.around.irq.pulses) {
      handled_ = uart_.around.irq.pulses;
      while (!(uart_.read(kIir) & kNoInterrupt)) handle();
    }
  }

  std::string received;

 private:
  void handle() {
    const uint8_t lsr = uart_.read(kLsr);
    if (lsr & kDataReady) {
      do {
        received.push_back(static_cast<char>(uart_.read(kData)));
      } while (uart_.read(kLsr) & kDataReady);
    }
    if (lsr & kThrEmpty) {
      for (int i = 0; i < 16 && !output_.empty(); ++i) {
        uart_.write(kData, static_cast<uint8_t>(output_.front()));
        output_.pop_front();
      }
      if (output_.empty()) uart_.write(kIer, 0x05);
    }
  }

  Harness<Serial>& uart_;
  std::deque<char> output_;
  int handled_ = 0;
};

std::string text_of(const std::vector<uint8_t>& bytes) { return {bytes.begin(), bytes.end()}; }

/// Types all of `text`, as the host does: what the FIFO has no room for is offered again.
void type_all(Harness<Serial>& uart, Driver& driver, const std::string& text) {
  std::span<const uint8_t> rest(reinterpret_cast<const uint8_t*>(text.data()), text.size());
  while (!rest.empty()) {
    const size_t taken = uart.device.receive(rest);
    rest = rest.subspan(taken);
    driver.take_interrupts();
    REQUIRE((taken > 0 || uart.device.receive_room() > 0));
  }
}

}  // namespace

TEST_CASE("the probes by which drivers tell UARTs apart find a 16550A") {
  Harness<Serial> uart;
  SECTION("IER keeps four bits") {
    uart.write(kIer, 0x00);
    CHECK((uart.read(kIer) & 0x0F) == 0x00);
    uart.write(kIer, 0x0F);
    CHECK((uart.read(kIer) & 0x0F) == 0x0F);
  }
  SECTION("loopback turns RTS and OUT2 into CTS and DCD") {
    uart.write(kMcr, 0x1A);
    CHECK((uart.read(kMsr) & 0xF0) == 0x90);
  }
  SECTION("IIR shows a working FIFO, of 16 bytes even if asked for 64") {
    uart.write(kFcr, 0x01);
    CHECK((uart.read(kIir) >> 5) == 6);
    uart.write(kLcr, 0x80);
    uart.write(kFcr, 0x21);
    CHECK((uart.read(kIir) >> 5) == 6);
  }
  SECTION("no extended register hides behind LCR values of other chips") {
    uart.write(kFcr, 0x01);
    for (const uint8_t lcr : {0x80, 0xBF, 0xE0}) {
      uart.write(kLcr, lcr);
      CHECK(uart.read(kIir) == 0xC1);
    }
  }
  SECTION("a FIFO filled in loopback holds 16 characters") {
    uart.write(kFcr, 0x07);
    uart.write(kMcr, 0x10);
    for (int i = 0; i < 256; ++i) uart.write(kData, static_cast<uint8_t>(i));
    int count = 0;
    while (uart.read(kLsr) & kDataReady) CHECK(uart.read(kData) == count++);
    CHECK(count == 16);
  }
  SECTION("the THRE interrupt comes again when enabled again") {
    uart.write(kIer, 0x02);
    CHECK((uart.read(kIir) & 0x0F) == 0x02);
    uart.write(kIer, 0x00);
    uart.write(kIer, 0x02);
    CHECK((uart.read(kIir) & 0x0F) == 0x02);
  }
}

TEST_CASE("a console loses nothing in either direction") {
  Harness<Serial> uart;
  Driver driver(uart);
  std::string long_text;
  for (int line = 0; line < 100; ++line) long_text += "line " + std::to_string(line) + "\r\n";

  driver.send("login: ");
  driver.take_interrupts();
  type_all(uart, driver, "root\r");
  driver.send(long_text);
  type_all(uart, driver, long_text);
  driver.take_interrupts();

  CHECK(driver.received == "root\r" + long_text);
  CHECK(text_of(uart.around.sink.bytes) == "login: " + long_text);
}

TEST_CASE("a console that is saved and restored with unread input goes on without loss") {
  Harness<Serial> original;
  Driver before(original);
  const std::string typed = "0123456789";
  REQUIRE(original.device.receive({reinterpret_cast<const uint8_t*>(typed.data()), 10}) == 10);

  Harness<Serial> copy(original.device.state());
  std::string got;
  while (!(copy.read(kIir) & kNoInterrupt)) got.push_back(static_cast<char>(copy.read(kData)));
  CHECK(got == typed);
}
