#include "devices/rtc_time.h"

#include <algorithm>
#include <chrono>

namespace kvmsnap {
namespace {

namespace chrono = std::chrono;

constexpr uint8_t kPm = 0x80;
constexpr uint8_t kAlarmAny = 0xC0;
constexpr int64_t kDaySeconds = 86'400;

constexpr chrono::sys_days kFirstDay = chrono::year{1900} / 1 / 1;
constexpr chrono::sys_days kLastDay = chrono::year{9999} / 12 / 31;

uint8_t encode_number(int number, bool binary) {
  return static_cast<uint8_t>(binary ? number : number / 10 * 16 + number % 10);
}

int decode_number(uint8_t byte, bool binary) {
  return binary ? byte : std::min(byte >> 4, 9) * 10 + std::min(byte & 0xF, 9);
}

uint8_t encode_hour(int hour, RtcFormat format) {
  if (format.hours24) return encode_number(hour, format.binary);
  const int hour12 = hour % 12 == 0 ? 12 : hour % 12;
  return encode_number(hour12, format.binary) | (hour >= 12 ? kPm : 0);
}

int decode_hour(uint8_t byte, RtcFormat format) {
  if (format.hours24) return std::clamp(decode_number(byte, format.binary), 0, 23);
  const int hour12 = std::clamp(decode_number(byte & ~kPm, format.binary), 1, 12);
  return hour12 % 12 + (byte & kPm ? 12 : 0);
}

}  // namespace

RtcBytes encode_time(const RtcFields& fields, RtcFormat format) {
  const bool binary = format.binary;
  // ACPI 6.5, table 5.9: the century is shown in the clock's own format.
  return {encode_number(fields.second, binary), encode_number(fields.minute, binary),
          encode_hour(fields.hour, format),     encode_number(fields.weekday, binary),
          encode_number(fields.day, binary),    encode_number(fields.month, binary),
          encode_number(fields.year, binary),   encode_number(fields.century, binary)};
}

RtcFields decode_time(const RtcBytes& bytes, RtcFormat format) {
  const auto number = [&](size_t field, int low, int high) {
    return std::clamp(decode_number(bytes[field], format.binary), low, high);
  };
  return {.second = number(0, 0, 59),
          .minute = number(1, 0, 59),
          .hour = decode_hour(bytes[2], format),
          .weekday = number(3, 1, 7),
          .day = number(4, 1, 31),
          .month = number(5, 1, 12),
          .year = number(6, 0, 99),
          .century = number(7, 19, 99)};
}

RtcFields fields_of(int64_t seconds) {
  constexpr int64_t kFirst = chrono::sys_seconds(kFirstDay).time_since_epoch().count();
  constexpr int64_t kLast =
      chrono::sys_seconds(kLastDay + chrono::days(1)).time_since_epoch().count() - 1;
  const chrono::sys_seconds time{chrono::seconds(std::clamp(seconds, kFirst, kLast))};
  const auto day = chrono::floor<chrono::days>(time);
  const chrono::year_month_day date{day};
  const chrono::hh_mm_ss clock{time - day};
  const int year = static_cast<int>(date.year());
  return {.second = static_cast<int>(clock.seconds().count()),
          .minute = static_cast<int>(clock.minutes().count()),
          .hour = static_cast<int>(clock.hours().count()),
          .weekday = static_cast<int>(chrono::weekday{day}.c_encoding()) + 1,
          .day = static_cast<int>(static_cast<unsigned>(date.day())),
          .month = static_cast<int>(static_cast<unsigned>(date.month())),
          .year = year % 100,
          .century = year / 100};
}

int64_t seconds_of(const RtcFields& fields) {
  const chrono::year_month month = chrono::year{fields.century * 100 + fields.year} /
                                   chrono::month{static_cast<unsigned>(fields.month)};
  const chrono::day last = (month / chrono::last).day();
  const chrono::day day = std::min(chrono::day{static_cast<unsigned>(fields.day)}, last);
  const auto time = chrono::sys_days{month / day} + chrono::hours(fields.hour) +
                    chrono::minutes(fields.minute) + chrono::seconds(fields.second);
  return time.time_since_epoch().count();
}

bool alarm_between(const std::array<uint8_t, 3>& alarm, int64_t first, int64_t last,
                   RtcFormat format) {
  const auto matches = [&](size_t field, int64_t number) {
    const int shown = static_cast<int>(number);
    return (alarm[field] & kAlarmAny) == kAlarmAny ||
           alarm[field] ==
               (field == 2 ? encode_hour(shown, format) : encode_number(shown, format.binary));
  };
  bool ever = false;
  for (int second = 0; second < 60; ++second) ever = ever || matches(0, second);
  if (!ever) return false;

  // A day has every time of day, so no more of them need a look; and of that day, only the seconds
  // of minutes and hours that match.
  for (int64_t time = std::max(first, last - kDaySeconds + 1); time <= last;) {
    const int64_t of_day = (time % kDaySeconds + kDaySeconds) % kDaySeconds;
    if (!matches(2, of_day / 3600)) {
      time += 3600 - of_day % 3600;
    } else if (!matches(1, of_day / 60 % 60)) {
      time += 60 - of_day % 60;
    } else if (!matches(0, of_day % 60)) {
      ++time;
    } else {
      return true;
    }
  }
  return false;
}

}  // namespace kvmsnap
