#include "devices/i8042.h"

#include <stdexcept>

#include "test/catch.h"
#include "test/devices/harness.h"

using namespace kvmsnap;
using namespace kvmsnap::test;

namespace {

constexpr uint16_t kData = I8042::kDataOffset, kCommand = I8042::kCommandOffset;
constexpr uint8_t kOutputFull = 0x01, kInputFull = 0x02, kLastWasCommand = 0x08, kAuxData = 0x20,
                  kTimeout = 0x40;

struct Controller : Harness<I8042> {
  uint8_t command(uint8_t command) {
    write(kCommand, command);
    REQUIRE((read(kCommand) & kOutputFull) != 0);
    return read(kData);
  }
  void command(uint8_t command, uint8_t parameter) {
    write(kCommand, command);
    write(kData, parameter);
  }
};

const std::vector<TracedStop::Stop> kOneReset = {{StopReason::Reset, 0}};

}  // namespace

TEST_CASE("command 0xFE resets the machine") {
  Controller controller;
  controller.write(kCommand, 0xFE);
  CHECK(controller.around.stop.stops == kOneReset);
}

TEST_CASE("the pulse commands reset exactly when they pulse bit 0") {
  for (int command = 0xF0; command <= 0xFF; ++command) {
    Controller controller;
    controller.write(kCommand, static_cast<uint8_t>(command));
    CAPTURE(command);
    CHECK(controller.around.stop.stops.size() == (command % 2 == 0 ? 1u : 0u));
  }
}

TEST_CASE("a 0 in bit 0 of the output port resets the machine") {
  Controller controller;
  controller.command(0xD1, 0x03);
  CHECK(controller.around.stop.stops.empty());
  controller.command(0xD1, 0x02);
  CHECK(controller.around.stop.stops == kOneReset);
  CHECK_NOTHROW(I8042::validate(controller.device.state()));
}

TEST_CASE("the A20 gate reads back as written") {
  Controller controller;
  controller.command(0xD1, 0xDF);
  CHECK(controller.command(0xD0) == 0xDF);
  controller.command(0xD1, 0xDD);
  CHECK(controller.command(0xD0) == 0xDD);
}

TEST_CASE("the input buffer is never full, so that no driver waits to write") {
  Controller controller;
  for (int byte = 0; byte < 256; ++byte) {
    controller.write(byte % 2 == 0 ? kCommand : kData, static_cast<uint8_t>(byte));
    CHECK((controller.read(kCommand) & kInputFull) == 0);
  }
}

TEST_CASE("draining the output buffer ends after one byte") {
  Controller controller;
  controller.write(kCommand, 0x20);
  CHECK((controller.read(kCommand) & kOutputFull) != 0);
  controller.read(kData);
  CHECK((controller.read(kCommand) & kOutputFull) == 0);
  CHECK(controller.read(kData) == 0x34);
}

TEST_CASE("the self-test passes and the keyboard's interface is fine") {
  Controller controller;
  CHECK(controller.command(0xAA) == 0x55);
  CHECK(controller.command(0xAB) == 0x00);
}

TEST_CASE("the command byte reads back as written, but for its reserved bit") {
  Controller controller;
  controller.command(0x60, 0xFF);
  CHECK(controller.command(0x20) == 0x7F);
}

TEST_CASE("enabling and disabling a device changes its bit of the command byte") {
  const auto [command, before, after] = GENERATE(table<uint8_t, uint8_t, uint8_t>(
      {{0xAD, 0x00, 0x10}, {0xAE, 0x30, 0x20}, {0xA7, 0x00, 0x20}, {0xA8, 0x30, 0x10}}));
  Controller controller;
  controller.command(0x60, before);
  controller.write(kCommand, command);
  CHECK(controller.command(0x20) == after);
}

TEST_CASE("both probes for an auxiliary port say at once that there is none") {
  Controller controller;
  controller.command(0xD3, 0x5A);
  CHECK((controller.read(kCommand) & (kOutputFull | kAuxData)) == kOutputFull);
  CHECK(controller.read(kData) == 0x5A);
  CHECK(controller.command(0xA9) == 0x01);
}

TEST_CASE("a byte for the missing keyboard or mouse comes back as a time-out") {
  const bool mouse = GENERATE(false, true);
  Controller controller;
  if (mouse) controller.write(kCommand, 0xD4);
  controller.write(kData, 0xF2);
  CHECK((controller.read(kCommand) & (kOutputFull | kTimeout)) == (kOutputFull | kTimeout));
  CHECK(controller.read(kData) == 0xFE);
  CHECK((controller.read(kCommand) & (kOutputFull | kTimeout)) == 0);
}

TEST_CASE("status tells a command from data") {
  Controller controller;
  controller.write(kCommand, 0x60);
  CHECK((controller.read(kCommand) & kLastWasCommand) != 0);
  controller.write(kData, 0x00);
  CHECK((controller.read(kCommand) & kLastWasCommand) == 0);
}

TEST_CASE("a full output buffer interrupts once, if the command byte says so") {
  Controller controller;
  controller.write(kCommand, 0x20);
  CHECK(controller.around.irq.pulses == 0);
  controller.read(kData);
  controller.command(0x60, 0x01);
  controller.write(kCommand, 0x20);
  controller.write(kCommand, 0x20);
  CHECK(controller.around.irq.pulses == 1);
  controller.read(kData);
  controller.write(kCommand, 0x20);
  CHECK(controller.around.irq.pulses == 2);
}

TEST_CASE("a command that takes no data forgets one that waits for it") {
  Controller controller;
  controller.write(kCommand, 0x60);
  controller.write(kCommand, 0xAA);
  controller.write(kData, 0x00);
  controller.read(kData);
  CHECK(controller.command(0x20) == 0x24);
}

TEST_CASE("the ports between data and command do nothing") {
  Controller controller;
  const auto before = controller.device.state();
  for (const uint16_t offset : {1, 2, 3, 5}) {
    controller.write(offset, 0xFE);
    CHECK(controller.read(offset) == 0xFF);
  }
  CHECK(controller.device.state() == before);
  CHECK(controller.around.stop.stops.empty());
}

TEST_CASE("states the controller cannot be in are refused") {
  const auto [what, spoil] = GENERATE(table<const char*, void (*)(I8042State&)>({
      {"i8042: command_byte has reserved bits", [](I8042State& s) { s.command_byte = 0x80; }},
      {"i8042: output_port holds the machine in reset", [](I8042State& s) { s.output_port = 2; }},
      {"i8042: pending_command takes no data", [](I8042State& s) { s.pending_command = 0x20; }},
      {"i8042: timeout is set with the output buffer empty",
       [](I8042State& s) { s.timeout = true; }},
  }));
  I8042State state;
  spoil(state);
  CHECK_THROWS_WITH(I8042::validate(state), what);
  CHECK_THROWS_AS(Harness<I8042>(state), std::invalid_argument);
}
