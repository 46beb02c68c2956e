#include "devices/cmos.h"

#include <stdexcept>

#include "test/catch.h"
#include "test/devices/harness.h"

using namespace kvmsnap;
using namespace kvmsnap::test;
using namespace std::chrono_literals;

namespace {

constexpr uint8_t kSeconds = 0, kMinutes = 2, kHours = 4, kWeekday = 6, kDay = 7, kMonth = 8,
                  kYear = 9, kA = 0x0A, kB = 0x0B, kC = 0x0C, kD = 0x0D, kCentury = 0x32;
constexpr uint8_t kSet = 0x80, kBinary = 0x04, k24 = 0x02;
constexpr uint8_t kUip = 0x80, kRun = 0x26, kHalt = 0x76;
constexpr uint8_t kPeriodic = 0x40, kAlarm = 0x20, kUpdate = 0x10;

struct Clock : Harness<Cmos> {
  using Harness<Cmos>::Harness;
  uint8_t get(uint8_t address) {
    write(0, address);
    return read(1);
  }
  void put(uint8_t address, uint8_t value) {
    write(0, address);
    write(1, value);
  }
  /// hours, minutes, seconds in BCD, as 0xHHMMSS
  int time() { return get(kHours) << 16 | get(kMinutes) << 8 | get(kSeconds); }
  /// century, year, month, day in BCD, as 0xYYYYMMDD
  unsigned date() {
    return static_cast<unsigned>(get(kCentury)) << 24 | static_cast<unsigned>(get(kYear)) << 16 |
           static_cast<unsigned>(get(kMonth)) << 8 | get(kDay);
  }
  void pass(std::chrono::microseconds time) { around.clock.time += time; }
};

}  // namespace

TEST_CASE("the clock shows the host's UTC time and goes with it") {
  Clock clock;
  CHECK(clock.time() == 0x223000);
  CHECK(clock.date() == 0x20261121);
  CHECK(clock.get(kWeekday) == 7);
  clock.pass(90min + 5s);
  CHECK(clock.time() == 0x000005);
  CHECK(clock.date() == 0x20261122);
  CHECK(clock.get(kWeekday) == 1);
}

TEST_CASE("register B chooses binary or BCD and 12 or 24 hours") {
  const auto [mode, hour, minute] = GENERATE(table<uint8_t, uint8_t, uint8_t>(
      {{k24, 0x22, 0x30}, {k24 | kBinary, 22, 30}, {0, 0x90, 0x30}, {kBinary, 0x8A, 30}}));
  Clock clock;
  clock.put(kB, mode);
  CHECK(clock.get(kHours) == hour);
  CHECK(clock.get(kMinutes) == minute);
}

TEST_CASE("midnight and noon are 12 in 12-hour mode") {
  Clock clock;
  clock.put(kB, 0);
  clock.pass(90min);
  CHECK(clock.get(kHours) == 0x12);
  clock.pass(12h);
  CHECK(clock.get(kHours) == 0x92);
}

TEST_CASE("UIP is set for the last 2228 us of each second and never stays") {
  Clock clock;
  CHECK(clock.get(kA) == kRun);
  clock.pass(1s - 2229us);
  CHECK(clock.get(kA) == kRun);
  clock.pass(1us);
  CHECK(clock.get(kA) == (kRun | kUip));
  clock.pass(2227us);
  CHECK(clock.get(kA) == (kRun | kUip));
  clock.pass(1us);
  CHECK(clock.get(kA) == kRun);
}

TEST_CASE("the time does not change for 244 us after UIP reads 0") {
  Clock clock;
  clock.pass(1s - 2229us);
  REQUIRE((clock.get(kA) & kUip) == 0);
  const int before = clock.time();
  clock.pass(244us);
  CHECK(clock.time() == before);
}

TEST_CASE("SET holds the time for writing, and the clock goes on from what was written") {
  Clock clock;
  clock.pass(250ms);
  clock.put(kB, kSet | k24);
  clock.pass(10s);
  CHECK(clock.time() == 0x223000);
  CHECK((clock.get(kA) & kUip) == 0);
  for (const auto& [address, value] : {std::pair<uint8_t, uint8_t>{kSeconds, 0x58},
                                       {kMinutes, 0x59},
                                       {kHours, 0x23},
                                       {kDay, 0x28},
                                       {kMonth, 0x02},
                                       {kYear, 0x28}}) {
    clock.put(address, value);
  }
  clock.put(kB, k24);
  CHECK(clock.time() == 0x235958);
  CHECK(clock.date() == 0x20280228);
  clock.pass(1749ms);
  CHECK(clock.time() == 0x235959);
  clock.pass(1ms);
  CHECK(clock.date() == 0x20280229);
}

TEST_CASE("a driver that halts the divider gets the next update half a second after release") {
  Clock clock;
  clock.pass(900ms);
  clock.put(kB, kSet | k24);
  clock.put(kA, kHalt);
  clock.put(kSeconds, 0x10);
  clock.put(kB, k24);
  clock.pass(5s);
  CHECK(clock.get(kSeconds) == 0x10);
  clock.put(kA, kRun);
  clock.pass(499ms);
  CHECK(clock.get(kSeconds) == 0x10);
  clock.pass(1ms);
  CHECK(clock.get(kSeconds) == 0x11);
}

TEST_CASE("releasing the divider before SET keeps its phase") {
  Clock clock;
  clock.put(kB, kSet | k24);
  clock.put(kA, kHalt);
  clock.pass(123ms);
  clock.put(kA, kRun);
  clock.pass(100ms);
  clock.put(kB, k24);
  clock.pass(399ms);
  CHECK(clock.get(kSeconds) == 0x00);
  clock.pass(1ms);
  CHECK(clock.get(kSeconds) == 0x01);
}

TEST_CASE("writing a time register of the running clock changes that one alone") {
  Clock clock;
  clock.put(kHours, 0x05);
  CHECK(clock.time() == 0x053000);
  CHECK(clock.date() == 0x20261121);
  clock.put(kCentury, 0x19);
  clock.put(kYear, 0x99);
  CHECK(clock.date() == 0x19991121);
  clock.put(kWeekday, 0x02);
  CHECK(clock.get(kWeekday) == 2);
  clock.pass(24h);
  CHECK(clock.get(kWeekday) == 3);
}

TEST_CASE("what no clock can show becomes the nearest time") {
  Clock clock;
  clock.put(kB, kSet | k24);
  for (const uint8_t address : {kSeconds, kMinutes, kHours, kDay, kMonth}) clock.put(address, 0xFF);
  CHECK(clock.get(kMonth) == 0xFF);
  clock.put(kB, k24);
  CHECK(clock.time() == 0x235959);
  CHECK(clock.date() == 0x20261231);
}

TEST_CASE("interrupt enables read back as not there, the rest of register B as written") {
  Clock clock;
  clock.put(kB, 0x7F);
  CHECK(clock.get(kB) == 0x0F);
}

TEST_CASE("register D says that RAM and time are valid, and C and D are read-only") {
  Clock clock;
  clock.put(kC, 0xFF);
  clock.put(kD, 0x00);
  CHECK(clock.get(kD) == 0x80);
  CHECK((clock.get(kC) & 0x8F) == 0);
}

TEST_CASE("register C shows an update since it was last read") {
  Clock clock;
  clock.put(kA, 0x20);
  clock.get(kC);
  clock.pass(999ms);
  CHECK(clock.get(kC) == 0);
  clock.pass(1ms);
  CHECK(clock.get(kC) == kUpdate);
  CHECK(clock.get(kC) == 0);
}

TEST_CASE("the periodic flag comes at the chosen rate") {
  const auto [rate, period] = GENERATE(table<uint8_t, std::chrono::microseconds>(
      {{15, 500'000us}, {14, 250'000us}, {6, 977us}, {2, 7813us}, {1, 3907us}}));
  Clock clock;
  clock.put(kA, 0x20 | rate);
  clock.get(kC);
  clock.pass(period - 1us);
  CHECK((clock.get(kC) & kPeriodic) == 0);
  clock.pass(1us);
  CHECK((clock.get(kC) & kPeriodic) != 0);
}

TEST_CASE("the alarm flag comes at the time of the alarm registers") {
  Clock clock;
  clock.put(1, 0x05);
  clock.put(3, 0x30);
  clock.put(5, 0x22);
  clock.get(kC);
  clock.pass(4s);
  CHECK((clock.get(kC) & kAlarm) == 0);
  clock.pass(1s);
  CHECK((clock.get(kC) & kAlarm) != 0);
  clock.pass(24h - 1s);
  CHECK((clock.get(kC) & kAlarm) == 0);
  clock.pass(1s);
  CHECK((clock.get(kC) & kAlarm) != 0);
}

TEST_CASE("alarm registers from 0xC0 match any time") {
  Clock clock;
  clock.put(1, 0x00);
  clock.put(3, 0xC0);
  clock.put(5, 0xFF);
  clock.get(kC);
  clock.pass(59s);
  CHECK((clock.get(kC) & kAlarm) == 0);
  clock.pass(1s);
  CHECK((clock.get(kC) & kAlarm) != 0);
  CHECK(clock.get(3) == 0xC0);
}

TEST_CASE("setting the clock raises no flags for the time it jumps over") {
  Clock clock;
  clock.put(kA, 0x20);
  clock.get(kC);
  clock.put(kYear, 0x40);
  CHECK(clock.get(kC) == 0);
}

TEST_CASE("a host clock that steps back raises no flags and loses none") {
  Clock clock;
  clock.put(kA, 0x20);
  clock.get(kC);
  clock.pass(-1h);
  CHECK(clock.get(kC) == 0);
  clock.pass(1s);
  CHECK(clock.get(kC) == kUpdate);
}

TEST_CASE("a restored clock keeps what the guest set and has moved on with the host") {
  Clock clock;
  clock.put(kHours, 0x05);
  Clock restored(clock.device.state(), clock.around.clock.time + 36h);
  CHECK(restored.time() == 0x173000);
  CHECK(restored.date() == 0x20261122);
}

TEST_CASE("RAM keeps 113 bytes, through the NMI bit of the index too") {
  Clock clock;
  for (int address = 0x0E; address < 0x80; ++address) {
    if (address == kCentury) continue;
    clock.put(static_cast<uint8_t>(address | 0x80), static_cast<uint8_t>(~address));
  }
  for (int address = 0x0E; address < 0x80; ++address) {
    if (address == kCentury) continue;
    CHECK(clock.get(static_cast<uint8_t>(address)) == static_cast<uint8_t>(~address));
  }
  CHECK(clock.get(kCentury) == 0x20);
}

TEST_CASE("the index port is write-only") {
  Clock clock;
  clock.write(0, 0x0B);
  CHECK(clock.read(0) == 0xFF);
  CHECK(clock.read(1) == k24);
  CHECK(clock.read(2) == 0xFF);
}

TEST_CASE("CMOS RAM tells firmware how much memory there is") {
  const auto word = [](Clock& clock, uint8_t low) {
    return clock.get(low) | clock.get(static_cast<uint8_t>(low + 1)) << 8;
  };
  constexpr uint64_t kMiB = 1 << 20;
  CmosState state;
  SECTION("256 MiB") {
    set_memory_size(state, 256 * kMiB, 0);
    Clock clock(state);
    CHECK(word(clock, 0x15) == 640);
    CHECK(word(clock, 0x17) == 0xFFFF);
    CHECK(word(clock, 0x30) == 0xFFFF);
    CHECK(word(clock, 0x34) == 240 * 16);
    CHECK(word(clock, 0x5B) == 0);
  }
  SECTION("4 GiB with 1 GiB above the hole") {
    set_memory_size(state, 3072 * kMiB, 1024 * kMiB);
    Clock clock(state);
    CHECK(word(clock, 0x34) == 3056 * 16);
    CHECK(word(clock, 0x5B) == 1024 * 16);
    CHECK(clock.get(0x5D) == 0);
  }
  SECTION("2 MiB and none") {
    set_memory_size(state, 2 * kMiB, 0);
    CHECK(state.ram[0x17 - 0x0E] == 0x00);
    CHECK(state.ram[0x18 - 0x0E] == 0x04);
    set_memory_size(state, 0, 0);
    CHECK(state == CmosState{});
  }
}

TEST_CASE("states the clock cannot be in are refused") {
  const auto [what, spoil] = GENERATE(table<const char*, void (*)(CmosState&)>({
      {"cmos: register_a has UIP set", [](CmosState& s) { s.register_a = 0xA6; }},
      {"cmos: register_b enables interrupts that the clock does not have",
       [](CmosState& s) { s.register_b = 0x12; }},
      {"cmos: register_c has reserved bits", [](CmosState& s) { s.register_c = 0x80; }},
      {"cmos: weekday_shift is more than 6", [](CmosState& s) { s.weekday_shift = 7; }},
      {"cmos: offset_us is beyond any date", [](CmosState& s) { s.offset_us = INT64_MIN; }},
      {"cmos: offset_us is beyond any date", [](CmosState& s) { s.offset_us = INT64_MAX; }},
      {"cmos: ram has a byte at the century's address",
       [](CmosState& s) { s.ram[0x32 - 0x0E] = 0x20; }},
      {"cmos: held_time is set while the clock runs", [](CmosState& s) { s.held_time[0] = 1; }},
  }));
  CmosState state;
  spoil(state);
  CHECK_THROWS_WITH(Cmos::validate(state), what);
  CHECK_THROWS_AS(Harness<Cmos>(state), std::invalid_argument);
}

TEST_CASE("the furthest times a state can have are shown, not overflowed") {
  const int64_t flags_since = GENERATE(INT64_MIN, INT64_MAX);
  const auto [years, date] =
      GENERATE(table<int, unsigned>({{9999, 0x99991231}, {-9999, 0x19000101}}));
  CmosState state;
  state.flags_since_us = flags_since;
  state.offset_us = int64_t{years} * 365 * 86400 * 1'000'000;
  Clock clock(state);
  CHECK(clock.date() == date);
  clock.get(kC);
  CHECK_NOTHROW(Cmos::validate(clock.device.state()));
}
