// What every device promises, whatever it is (native/devices/device.h).
#include <random>
#include <stdexcept>

#include "test/catch.h"
#include "test/devices/harness.h"

using namespace kvmsnap;
using namespace kvmsnap::test;

#define EVERY_DEVICE Serial, I8042, Cmos, AcpiPower, DebugPort, ExitPort
#define DEVICES_WITH_STATE Serial, I8042, Cmos, AcpiPower

namespace {

Op random_op(std::mt19937& random) {
  std::array<uint8_t, Op::kEncodedSize> bytes;
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
  return Op::decode(bytes);
}

/// Operations that each change the state, from the default on, one after the other.
template <typename Device>
std::vector<Op> mutations();

template <>
std::vector<Op> mutations<Serial>() {
  return {
      Op::outside('a', 1),  // rx_fifo, rx_count
      Op::write(1, 0x0D),   // ier
      Op::write(0, 'x'),    // thre_pending
      Op::write(1, 0x0F),   // ier
      Op::read(0),          // rx_fifo, by reading RBR
      Op::read(2),          // thre_pending, by reading IIR
      Op::write(2, 0xC1),   // fcr
      Op::outside('b', 4),  // rx_fifo again
      Op::write(2, 0xC3),   // rx_fifo, by a reset
      Op::write(3, 0x83),   // lcr
      Op::write(0, 0x01),   // divisor, low
      Op::write(1, 0x01),   // divisor, high
      Op::write(3, 0x03),   // lcr
      Op::write(4, 0x10),   // mcr and, in loopback, msr
      Op::read(6),          // msr deltas
      Op::write(7, 0xA5),   // scr
      Op::write(2, 0x00),   // fcr
      Op::write(0, 'y'),    // a looped-back character
      Op::write(0, 'z'),    // overrun
      Op::read(5),          // overrun, by reading LSR
  };
}

template <>
std::vector<Op> mutations<I8042>() {
  return {
      Op::write(4, 0x20),  // answer waits
      Op::read(0),         // answer taken
      Op::write(4, 0x60),  // command waits for data
      Op::write(0, 0x65),  // command byte
      Op::write(4, 0xD1),  // command waits for data
      Op::write(0, 0xDF),  // output port
      Op::write(0, 0xF2),  // to the keyboard: times out
      Op::read(0),         // time-out taken
      Op::write(4, 0xA7),  // command byte: auxiliary disabled
      Op::write(4, 0xAD),  // command byte: keyboard disabled
  };
}

template <>
std::vector<Op> mutations<Cmos>() {
  return {
      Op::write(0, 0x0B),                        // index
      Op::write(1, 0x82),                        // register B: holds the time
      Op::write(0, 0x04),                        // index
      Op::write(1, 0x05),                        // held hours
      Op::write(0, 0x0B),                        // index
      Op::write(1, 0x02),                        // register B: offset
      Op::write(0, 0x06),                        // index
      Op::write(1, 0x03),                        // day of week
      Op::write(0, 0x05),                        // index
      Op::write(1, 0xC0),                        // alarm
      Op::write(0, 0x0A),                        // index
      Op::write(1, 0x2F),                        // register A
      Op::outside(255, 20), Op::write(0, 0x0C),  // index
      Op::read(1),                               // register C, up to now
      Op::write(0, 0xF0),                        // index, NMI masked
      Op::write(1, 0x5A),                        // ram
  };
}

template <>
std::vector<Op> mutations<AcpiPower>() {
  return {Op::write(0, 3 << 2), Op::write(0, (5 << 2) | 0x20), Op::write(0, 0)};
}

}  // namespace

TEMPLATE_TEST_CASE("the default state is valid and comes back unchanged", "", EVERY_DEVICE) {
  const typename TestType::State state;
  REQUIRE_NOTHROW(TestType::validate(state));
  Harness<TestType> harness(state);
  CHECK(harness.device.state() == state);
  CHECK(harness.around.trace.empty());
}

TEMPLATE_TEST_CASE("saving twice gives the same state and has no effect", "", EVERY_DEVICE) {
  std::mt19937 random(1);
  Harness<TestType> harness;
  for (int i = 0; i < 500; ++i) {
    harness.run(random_op(random));
    const Trace before = harness.around.trace;
    const auto first = harness.device.state();
    const auto second = harness.device.state();
    REQUIRE(first == second);
    REQUIRE(harness.around.trace == before);
  }
}

TEMPLATE_TEST_CASE("save, restore and save again gives the same state", "", EVERY_DEVICE) {
  std::mt19937 random(2);
  Harness<TestType> harness;
  for (int i = 0; i < 2000; ++i) {
    harness.run(random_op(random));
    const auto saved = harness.device.state();
    REQUIRE_NOTHROW(TestType::validate(saved));
    Harness<TestType> restored(saved, harness.around.clock.time);
    REQUIRE(restored.device.state() == saved);
    REQUIRE(restored.around.trace.empty());
  }
}

TEMPLATE_TEST_CASE("a restored copy acts like the original from then on", "", EVERY_DEVICE) {
  for (uint32_t seed = 0; seed < 50; ++seed) {
    std::mt19937 random(seed);
    Harness<TestType> original;
    for (int i = 0; i < 40; ++i) original.run(random_op(random));
    original.around.trace.clear();
    Harness<TestType> copy(original.device.state(), original.around.clock.time);
    for (int i = 0; i < 200; ++i) {
      const Op op = random_op(random);
      original.run(op);
      copy.run(op);
      REQUIRE(copy.around.trace == original.around.trace);
      REQUIRE(copy.device.state() == original.device.state());
    }
  }
}

TEMPLATE_TEST_CASE("a wide access is the byte accesses it consists of", "", DEVICES_WITH_STATE) {
  std::mt19937 random(3);
  Harness<TestType> wide;
  Harness<TestType> narrow;
  for (int i = 0; i < 2000; ++i) {
    Op op = random_op(random);
    wide.run(op);
    if (op.kind == Op::Outside) {
      narrow.run(op);
    } else {
      for (uint16_t byte = 0; byte < op.size; ++byte) {
        narrow.run({op.kind, static_cast<uint16_t>(op.offset + byte), 1, {op.data[byte]}});
      }
    }
    REQUIRE(narrow.device.state() == wide.device.state());
  }
  CHECK(narrow.around.stop.stops == wide.around.stop.stops);
  CHECK(narrow.around.sink.bytes == wide.around.sink.bytes);
}

TEMPLATE_TEST_CASE("the state differs after each change", "", DEVICES_WITH_STATE) {
  Harness<TestType> harness;
  int step = 0;
  for (const Op& op : mutations<TestType>()) {
    const auto before = harness.device.state();
    harness.run(op);
    if (op.kind == Op::Outside && std::is_same_v<TestType, Cmos>) continue;  // time is no state
    CAPTURE(step++, op.offset, op.data[0]);
    CHECK(harness.device.state() != before);
  }
}

TEMPLATE_TEST_CASE("every field of the state changes under some operations", "",
                   DEVICES_WITH_STATE) {
  using State = typename TestType::State;
  std::mt19937 random(4);
  Harness<TestType> harness;
  const auto values = [](const State& state) {
    std::vector<std::vector<uint8_t>> all;
    for_each_field(state, [&all](const char*, const auto& field) {
      const auto* bytes = reinterpret_cast<const uint8_t*>(&field);
      all.emplace_back(bytes, bytes + sizeof(field));
    });
    return all;
  };
  const State defaults;
  const auto initial = values(defaults);
  std::vector<bool> changed(initial.size());
  for (int i = 0; i < 20000; ++i) {
    harness.run(random_op(random));
    const auto now = values(harness.device.state());
    for (size_t field = 0; field < now.size(); ++field) {
      if (now[field] != initial[field]) changed[field] = true;
    }
  }
  std::vector<std::string> unchanged;
  size_t field = 0;
  for_each_field(std::as_const(defaults), [&](const char* name, const auto&) {
    if (!changed[field++]) unchanged.emplace_back(name);
  });
  // No machine of ours sets WAK_STS: it wakes by restore alone.
  const std::vector<std::string> constant = std::is_same_v<TestType, AcpiPower>
                                                ? std::vector<std::string>{"sleep_status"}
                                                : std::vector<std::string>{};
  CHECK(unchanged == constant);
}

TEMPLATE_TEST_CASE("a copy with its own surroundings leaves the original alone", "",
                   DEVICES_WITH_STATE) {
  Harness<TestType> original;
  const auto saved = original.device.state();
  Harness<TestType> copy(saved, original.around.clock.time);
  for (const Op& op : mutations<TestType>()) copy.run(op);
  CHECK(original.device.state() == saved);
  CHECK(original.around.trace.empty());
}
