#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace kvmsnap {

/// How an MC146818 shows its time: register B, DM (binary, otherwise BCD) and 24/12.
struct RtcFormat {
  bool binary;
  bool hours24;
};

/// The clock's time registers, in register order. Numbers, not BCD.
struct RtcFields {
  int second;
  int minute;
  int hour;     ///< 0 to 23
  int weekday;  ///< 1 (Sunday) to 7
  int day;      ///< 1 to 31
  int month;    ///< 1 to 12
  int year;     ///< of the century, 0 to 99
  int century;  ///< 19 to 99; 20 in 2026
};

using RtcBytes = std::array<uint8_t, 8>;

/// Shows `fields` as the registers do.
RtcBytes encode_time(const RtcFields& fields, RtcFormat format);
/// Reads registers back. What no clock shows (month 13, BCD digit 12) becomes the nearest number
/// that a clock could show.
RtcFields decode_time(const RtcBytes& bytes, RtcFormat format);

/// `seconds` since 1970 as a calendar date of the years 1900 to 9999, UTC; out of range, the
/// nearest.
RtcFields fields_of(int64_t seconds);
/// Seconds since 1970. A day past the month's end is the month's last. Ignores `weekday`.
int64_t seconds_of(const RtcFields& fields);

/// Whether the alarm registers (seconds, minutes, hours) match the time of day of some second from
/// `first` to `last`, both since 1970.
bool alarm_between(const std::array<uint8_t, 3>& alarm, int64_t first, int64_t last,
                   RtcFormat format);

}  // namespace kvmsnap
