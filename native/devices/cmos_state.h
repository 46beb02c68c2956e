#pragma once

#include <array>
#include <cstdint>
#include <type_traits>

namespace kvmsnap {

/// Registers of the MC146818 real-time clock and CMOS RAM of a PC/AT (Motorola MC146818 data
/// sheet). The default is a clock that shows the host's UTC time in BCD, 24-hour mode.
struct CmosState {
  /// Port 0x70 as last written: address (6:0), NMI mask (7).
  uint8_t index = 0;
  /// Register A without UIP (7), which follows from the time: divider (6:4), rate (3:0).
  uint8_t register_a = 0x26;
  /// Register B: SET (7), square wave (3), binary mode (2), 24-hour mode (1), daylight saving (0).
  /// The interrupt enables PIE, AIE and UIE (6:4) are not supported and stay 0.
  uint8_t register_b = 0x02;
  /// Register C flags that were latched before `flags_since_us`: PF (6), AF (5), UF (4).
  uint8_t register_c = 0;
  /// Alarm seconds, minutes, hours (addresses 1, 3, 5) as written; 0xC0 to 0xFF match any.
  std::array<uint8_t, 3> alarm{};
  /// Time registers while SET or a divider reset holds the clock, as written: seconds, minutes,
  /// hours, day of week, day of month, month, year (addresses 0, 2, 4, 6 to 9), century (0x32).
  /// Zero while the clock runs.
  std::array<uint8_t, 8> held_time{};
  /// How many days the day-of-week register is ahead of the calendar: 0 to 6.
  uint8_t weekday_shift = 0;
  /// The clock's time less the host's UTC time, in microseconds.
  int64_t offset_us = 0;
  /// The clock's time, in microseconds since 1970, up to which flags are in `register_c`.
  int64_t flags_since_us = 0;
  /// RAM at addresses 0x0E to 0x7F. The byte at 0x32, the century, is 0 here.
  std::array<uint8_t, 114> ram{};

  bool operator==(const CmosState&) const = default;
};

/// Calls `visit(name, field)` for each field in declaration order. Names are those of the snapshot
/// format: added to, never renamed.
template <typename State, typename Visit>
requires std::is_same_v<std::remove_const_t<State>, CmosState>
void for_each_field(State& state, Visit&& visit) {
  visit("index", state.index);
  visit("register_a", state.register_a);
  visit("register_b", state.register_b);
  visit("register_c", state.register_c);
  visit("alarm", state.alarm);
  visit("held_time", state.held_time);
  visit("weekday_shift", state.weekday_shift);
  visit("offset_us", state.offset_us);
  visit("flags_since_us", state.flags_since_us);
  visit("ram", state.ram);
}

/// Writes the memory sizes that firmware leaves in CMOS RAM: base memory (0x15), extended memory
/// (0x17, 0x30), memory above 16 MiB (0x34) and above 4 GiB (0x5B), each saturated.
/// `below_4g` and `above_4g` are bytes of RAM under and over the 4 GiB line.
void set_memory_size(CmosState& state, uint64_t below_4g, uint64_t above_4g);

}  // namespace kvmsnap
