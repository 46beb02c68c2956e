#include "devices/rtc_time.h"

#include "test/catch.h"

using namespace kvmsnap;

namespace {
const RtcFormat kFormats[] = {{false, false}, {false, true}, {true, false}, {true, true}};
constexpr int64_t kFirst = -2208988800;  // 1900-01-01 00:00:00
constexpr int64_t kLast = 253402300799;  // 9999-12-31 23:59:59
}  // namespace

TEST_CASE("known dates convert both ways") {
  const auto [seconds, century, year, month, day, weekday] =
      GENERATE(table<int64_t, int, int, int, int, int>({{0, 19, 70, 1, 1, 5},
                                                        {951782400, 20, 0, 2, 29, 3},
                                                        {1795305600, 20, 26, 11, 22, 1},
                                                        {-2203891200, 19, 0, 3, 1, 5},
                                                        {4107542400, 21, 0, 3, 1, 2},
                                                        {kFirst, 19, 0, 1, 1, 2}}));
  const RtcFields fields = fields_of(seconds);
  CHECK(fields.century == century);
  CHECK(fields.year == year);
  CHECK(fields.month == month);
  CHECK(fields.day == day);
  CHECK(fields.weekday == weekday);
  CHECK(seconds_of(fields) == seconds);
}

TEST_CASE("every hour of eight centuries survives conversion and each format") {
  // 1009 hours and a few seconds: coprime to days, months and years, so that all of each come up.
  for (int64_t seconds = kFirst; seconds < kFirst + int64_t{800} * 366 * 86400;
       seconds += 1009 * 3600 + 61) {
    const RtcFields fields = fields_of(seconds);
    REQUIRE(seconds_of(fields) == seconds);
    for (const RtcFormat format : kFormats) {
      REQUIRE(seconds_of(decode_time(encode_time(fields, format), format)) == seconds);
    }
  }
}

TEST_CASE("all bytes decode to a time that can be shown") {
  for (const RtcFormat format : kFormats) {
    for (int byte = 0; byte < 256; ++byte) {
      RtcBytes bytes;
      bytes.fill(static_cast<uint8_t>(byte));
      const int64_t seconds = seconds_of(decode_time(bytes, format));
      REQUIRE(seconds >= kFirst);
      REQUIRE(seconds <= kLast);
    }
  }
}

TEST_CASE("a day past the month's end is its last") {
  RtcFields fields = fields_of(0);
  fields.month = 2;
  fields.day = 31;
  CHECK(fields_of(seconds_of(fields)).day == 28);
  fields.century = 20;
  fields.year = 24;
  CHECK(fields_of(seconds_of(fields)).day == 29);
}

TEST_CASE("times out of range are the nearest in range") {
  CHECK(seconds_of(fields_of(INT64_MIN)) == kFirst);
  CHECK(seconds_of(fields_of(INT64_MAX)) == kLast);
}

TEST_CASE("an alarm matches before 1970 as after") {
  const RtcFormat bcd24{.binary = false, .hours24 = true};
  const auto at = [&](std::array<uint8_t, 3> alarm, int64_t second) {
    return alarm_between(alarm, second, second, bcd24);
  };
  CHECK(at({0x59, 0x59, 0x23}, -1));
  CHECK_FALSE(at({0x59, 0x59, 0x23}, 0));
  CHECK(at({0xC0, 0xFF, 0x00}, 3599));
  CHECK_FALSE(at({0xC0, 0xFF, 0x00}, 3600));
}

TEST_CASE("an alarm is found in a range exactly if a second of the range matches") {
  const auto [seconds, minutes, hours] = GENERATE(table<uint8_t, uint8_t, uint8_t>(
      {{0x30, 0x15, 0x81}, {0xC0, 0x59, 0xC0}, {0x00, 0xC0, 0x12}, {0x60, 0xC0, 0xC0}}));
  const std::array<uint8_t, 3> alarm = {seconds, minutes, hours};
  const RtcFormat bcd12{.binary = false, .hours24 = false};
  for (int64_t first = -90'000; first < 90'000; first += 1777) {
    for (const int64_t length : {0, 1, 59, 60, 3599, 3600, 90'000}) {
      bool one_matches = false;
      for (int64_t second = first; second <= first + length && !one_matches; ++second) {
        one_matches = alarm_between(alarm, second, second, bcd12);
      }
      REQUIRE(alarm_between(alarm, first, first + length, bcd12) == one_matches);
    }
  }
}
