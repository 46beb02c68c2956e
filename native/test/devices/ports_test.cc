// The devices of one or two registers: debug port, exit port, ACPI sleep registers.
#include <stdexcept>

#include "test/catch.h"
#include "test/devices/harness.h"

using namespace kvmsnap;
using namespace kvmsnap::test;

TEST_CASE("the debug port sends every byte out, lowest first, and reads as 0xE9") {
  Harness<DebugPort> port;
  port.write(0, 'a');
  port.run({Op::Write, 0, 4, {'b', 'c', 'd', 'e'}});
  CHECK(port.around.sink.bytes == std::vector<uint8_t>{'a', 'b', 'c', 'd', 'e'});
  CHECK(port.read(0) == 0xE9);
}

TEST_CASE("the exit port stops the machine with the byte, word or dword written") {
  const auto [size, code] =
      GENERATE(table<uint8_t, uint32_t>({{1, 0xEF}, {2, 0xBEEF}, {4, 0xDEADBEEF}}));
  Harness<ExitPort> port;
  port.run({Op::Write, 0, size, {0xEF, 0xBE, 0xAD, 0xDE}});
  CHECK(port.around.stop.stops == std::vector<TracedStop::Stop>{{StopReason::ExitPort, code}});
}

TEST_CASE("reading the exit port gives ones and stops nothing") {
  Harness<ExitPort> port;
  CHECK(port.read(0) == 0xFF);
  CHECK(port.around.stop.stops.empty());
}

TEST_CASE("entering S5 powers off, other sleep types and S5 without SLP_EN do not") {
  Harness<AcpiPower> power;
  power.write(0, 3 << 2 | 0x20);
  power.write(0, 5 << 2);
  CHECK(power.around.stop.stops.empty());
  power.write(0, 5 << 2 | 0x20);
  CHECK(power.around.stop.stops == std::vector<TracedStop::Stop>{{StopReason::PowerOff, 0}});
}

TEST_CASE("SLP_TYPx reads back without SLP_EN and the reserved bits") {
  Harness<AcpiPower> power;
  power.write(0, 0xFF);
  CHECK(power.read(0) == 0x1C);
}

TEST_CASE("WAK_STS is cleared by writing 1 and kept by writing 0") {
  Harness<AcpiPower> power(AcpiPowerState{.sleep_status = 0x80});
  power.write(1, 0x00);
  CHECK(power.read(1) == 0x80);
  power.write(1, 0x80);
  CHECK(power.read(1) == 0x00);
}

TEST_CASE("the reset register resets when bit 2 is written, and reads as 0") {
  Harness<AcpiPower> power;
  power.write(AcpiPower::kResetOffset, 0x02);
  CHECK(power.around.stop.stops.empty());
  const uint8_t value = GENERATE(uint8_t{0x04}, uint8_t{0x06}, uint8_t{0x0E}, uint8_t{0xFF});
  power.write(AcpiPower::kResetOffset, value);
  CHECK(power.around.stop.stops == std::vector<TracedStop::Stop>{{StopReason::Reset, 0}});
  CHECK(power.read(AcpiPower::kResetOffset) == 0);
}

TEST_CASE("a wide access to the sleep registers does not reach the reset register") {
  Harness<AcpiPower> power;
  power.run({Op::Write, 0, 4, {0xFF, 0xFF, 0xFF, 0xFF}});
  power.run({Op::Write, 1, 4, {0xFF, 0xFF, 0xFF, 0xFF}});
  CHECK(power.around.stop.stops.empty());
}

TEST_CASE("sleep registers with reserved bits are refused") {
  CHECK_THROWS_WITH(AcpiPower::validate({.sleep_control = 0x20}),
                    "acpi_power: sleep_control has bits other than SLP_TYPx");
  CHECK_THROWS_AS(Harness<AcpiPower>({.sleep_status = 0x01}), std::invalid_argument);
}
