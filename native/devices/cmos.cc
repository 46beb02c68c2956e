#include "devices/cmos.h"

#include <algorithm>
#include <optional>
#include <stdexcept>

namespace kvmsnap {
namespace {

constexpr uint32_t kIndexPort = 0;
constexpr uint32_t kDataPort = 1;
constexpr uint8_t kAddressMask = 0x7F;
constexpr uint8_t kUndriven = 0xFF;

constexpr uint8_t kRegisterA = 0x0A;
constexpr uint8_t kRegisterB = 0x0B;
constexpr uint8_t kRegisterC = 0x0C;
constexpr uint8_t kRegisterD = 0x0D;
constexpr uint8_t kRam = 0x0E;

constexpr uint8_t kUpdateInProgress = 0x80;
constexpr uint8_t kDividerReset = 0x60;  // DV2 and DV1
constexpr uint8_t kRate = 0x0F;

constexpr uint8_t kSet = 0x80;
constexpr uint8_t kInterruptEnables = 0x70;
constexpr uint8_t kBinary = 0x04;
constexpr uint8_t kHours24 = 0x02;

constexpr uint8_t kPeriodicFlag = 0x40;
constexpr uint8_t kAlarmFlag = 0x20;
constexpr uint8_t kUpdateFlag = 0x10;
constexpr uint8_t kFlags = kPeriodicFlag | kAlarmFlag | kUpdateFlag;

constexpr uint8_t kValidRamAndTime = 0x80;

constexpr size_t kCenturyField = 7;

constexpr int64_t kSecondUs = 1'000'000;
constexpr int64_t kDaySeconds = 86'400;
// Data sheet, update cycle: UIP rises 244 us before an update, which takes 1984 us.
constexpr int64_t kUpdateUs = 244 + 1984;
// Data sheet, divider control: the first update comes half a second after the divider is released.
constexpr int64_t kReleasePhaseUs = kSecondUs / 2;
// More than any date that the clock can show is from any other.
constexpr int64_t kMaxOffsetUs = int64_t{10'000} * 366 * kDaySeconds * kSecondUs;

int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b < 0 ? 1 : 0); }
int64_t floor_mod(int64_t a, int64_t b) { return (a % b + b) % b; }

int64_t clamp_offset(int64_t us) { return std::clamp(us, -kMaxOffsetUs, kMaxOffsetUs); }

bool divider_in_reset(uint8_t register_a) { return (register_a & kDividerReset) == kDividerReset; }

std::optional<size_t> time_field(uint8_t address) {
  if (address == Cmos::kCenturyAddress) return kCenturyField;
  if (address <= 5) return address % 2 == 0 ? std::optional<size_t>(address / 2) : std::nullopt;
  if (address <= 9) return address - 3;
  return std::nullopt;
}

std::optional<size_t> alarm_field(uint8_t address) {
  return address <= 5 && address % 2 == 1 ? std::optional<size_t>(address / 2) : std::nullopt;
}

// Data sheet table 5: the period for a 32.768 kHz time base, in ticks of it.
int64_t periodic_ticks(uint8_t rate) {
  if (rate == 1 || rate == 2) return int64_t{128} << (rate - 1);
  return int64_t{1} << (rate - 1);
}

// How many periods have passed at a time.
int64_t periods_at(int64_t clock_us, uint8_t rate) {
  const int64_t ticks =
      floor_div(clock_us, kSecondUs) * 32768 + floor_mod(clock_us, kSecondUs) * 32768 / kSecondUs;
  return floor_div(ticks, periodic_ticks(rate));
}

void require(bool condition, const char* what) {
  if (!condition) throw std::invalid_argument(what);
}

}  // namespace

void set_memory_size(CmosState& state, uint64_t below_4g, uint64_t above_4g) {
  const auto put = [&state](uint8_t address, uint64_t value, unsigned bytes) {
    const uint64_t saturated = std::min(value, (uint64_t{1} << (8 * bytes)) - 1);
    for (unsigned i = 0; i < bytes; ++i) {
      state.ram[address - kRam + i] = static_cast<uint8_t>(saturated >> (8 * i));
    }
  };
  const auto over = [&](uint64_t line) { return below_4g > line ? below_4g - line : 0; };
  constexpr uint64_t kKiB = 1024;
  constexpr uint64_t kMiB = 1024 * kKiB;
  put(0x15, std::min(below_4g / kKiB, uint64_t{640}), 2);
  put(0x17, over(kMiB) / kKiB, 2);
  put(0x30, over(kMiB) / kKiB, 2);
  put(0x34, over(16 * kMiB) / (64 * kKiB), 2);
  put(0x5B, above_4g / (64 * kKiB), 3);
}

void Cmos::validate(const State& state) {
  require((state.register_a & kUpdateInProgress) == 0, "cmos: register_a has UIP set");
  require((state.register_b & kInterruptEnables) == 0,
          "cmos: register_b enables interrupts that the clock does not have");
  require((state.register_c & ~kFlags) == 0, "cmos: register_c has reserved bits");
  require(state.weekday_shift < 7, "cmos: weekday_shift is more than 6");
  require(state.offset_us >= -kMaxOffsetUs && state.offset_us <= kMaxOffsetUs,
          "cmos: offset_us is beyond any date");
  require(state.ram[kCenturyAddress - kRam] == 0, "cmos: ram has a byte at the century's address");
  const bool held = (state.register_b & kSet) || divider_in_reset(state.register_a);
  require(held || state.held_time == RtcBytes{}, "cmos: held_time is set while the clock runs");
}

Cmos::Cmos(const State& state, WallClock& clock) : state_(state), clock_(clock) { validate(state); }

bool Cmos::held() const {
  return (state_.register_b & kSet) || divider_in_reset(state_.register_a);
}

RtcFormat Cmos::format() const {
  return {.binary = (state_.register_b & kBinary) != 0,
          .hours24 = (state_.register_b & kHours24) != 0};
}

int64_t Cmos::host_us() { return clock_.now().time_since_epoch().count(); }

uint8_t Cmos::read_register(uint32_t offset) {
  // Port 0x70 is write-only on a PC/AT.
  return offset == kDataPort ? read_address(state_.index & kAddressMask) : kUndriven;
}

void Cmos::write_register(uint32_t offset, uint8_t value) {
  if (offset == kIndexPort) state_.index = value;
  if (offset == kDataPort) write_address(state_.index & kAddressMask, value);
}

uint8_t Cmos::read_address(uint8_t address) {
  if (const auto field = time_field(address)) return read_time(*field);
  if (const auto field = alarm_field(address)) return state_.alarm[*field];
  switch (address) {
    case kRegisterA:
      return read_register_a();
    case kRegisterB:
      return state_.register_b;
    case kRegisterC:
      return read_register_c();
    case kRegisterD:
      return kValidRamAndTime;
    default:
      return state_.ram[address - kRam];
  }
}

void Cmos::write_address(uint8_t address, uint8_t value) {
  if (const auto field = time_field(address)) return write_time(*field, value);
  if (const auto field = alarm_field(address)) {
    latch_flags(host_us() + state_.offset_us);
    state_.alarm[*field] = value;
    return;
  }
  switch (address) {
    case kRegisterA:
      return write_control(value & ~kUpdateInProgress, state_.register_b);
    case kRegisterB:
      return write_control(state_.register_a, value & ~kInterruptEnables);
    case kRegisterC:
    case kRegisterD:
      return;  // read-only
    default:
      state_.ram[address - kRam] = value;
  }
}

uint8_t Cmos::read_register_a() {
  if (held()) return state_.register_a;
  const int64_t phase = floor_mod(host_us() + state_.offset_us, kSecondUs);
  return state_.register_a | (phase >= kSecondUs - kUpdateUs ? kUpdateInProgress : 0);
}

uint8_t Cmos::read_register_c() {
  latch_flags(host_us() + state_.offset_us);
  const uint8_t flags = state_.register_c;
  state_.register_c = 0;
  return flags;
}

void Cmos::write_control(uint8_t register_a, uint8_t register_b) {
  const int64_t host = host_us();
  latch_flags(host + state_.offset_us);
  const bool was_held = held();
  const bool was_in_reset = divider_in_reset(state_.register_a);
  state_.register_a = register_a;
  state_.register_b = register_b;
  if (!was_held && held()) state_.held_time = running_time(host + state_.offset_us);
  if (was_in_reset && !divider_in_reset(register_a)) {
    const int64_t phase = floor_mod(host + state_.offset_us, kSecondUs);
    state_.offset_us = clamp_offset(state_.offset_us + kReleasePhaseUs - phase);
  }
  if (was_held && !held()) {
    const RtcBytes shown = state_.held_time;
    state_.held_time = {};
    start(shown, host, floor_mod(host + state_.offset_us, kSecondUs));
  }
}

uint8_t Cmos::read_time(size_t field) {
  return held() ? state_.held_time[field] : running_time(host_us() + state_.offset_us)[field];
}

void Cmos::write_time(size_t field, uint8_t value) {
  if (held()) {
    state_.held_time[field] = value;
    return;
  }
  const int64_t host = host_us();
  const int64_t clock = host + state_.offset_us;
  latch_flags(clock);
  RtcBytes shown = running_time(clock);
  shown[field] = value;
  start(shown, host, floor_mod(clock, kSecondUs));
}

RtcBytes Cmos::running_time(int64_t clock_us) const {
  RtcFields fields = fields_of(floor_div(clock_us, kSecondUs));
  fields.weekday = (fields.weekday - 1 + state_.weekday_shift) % 7 + 1;
  return encode_time(fields, format());
}

void Cmos::start(const RtcBytes& shown, int64_t host_us, int64_t fraction_us) {
  const RtcFields fields = decode_time(shown, format());
  const int64_t seconds = seconds_of(fields);
  const int64_t clock = seconds * kSecondUs + fraction_us;
  state_.offset_us = clamp_offset(clock - host_us);
  state_.weekday_shift =
      static_cast<uint8_t>((fields.weekday - fields_of(seconds).weekday + 7) % 7);
  state_.flags_since_us = clock;
}

void Cmos::latch_flags(int64_t clock_us) {
  const int64_t since = state_.flags_since_us;
  state_.flags_since_us = clock_us;
  if (clock_us <= since || divider_in_reset(state_.register_a)) return;
  const uint8_t rate = state_.register_a & kRate;
  if (rate != 0 && periods_at(clock_us, rate) != periods_at(since, rate)) {
    state_.register_c |= kPeriodicFlag;
  }
  if (held()) return;  // SET inhibits updates; the divider goes on
  const int64_t last = floor_div(clock_us, kSecondUs);
  const int64_t first = floor_div(since, kSecondUs) + 1;
  if (first > last) return;
  state_.register_c |= kUpdateFlag;
  if (alarm_between(state_.alarm, first, last, format())) state_.register_c |= kAlarmFlag;
}

}  // namespace kvmsnap
