#pragma once

#include "devices/cmos_state.h"
#include "devices/device.h"
#include "devices/rtc_time.h"

namespace kvmsnap {

/// The MC146818 real-time clock and CMOS RAM of a PC/AT (Motorola MC146818 data sheet; the century
/// byte as in ACPI's FADT). The time is the host's plus an offset that setting the clock
/// changes; UIP and the flags of register C follow from the time when they are read. The clock
/// has no interrupt: PIE, AIE and UIE read back as 0, and a guest polls instead.
class Cmos final : public ByteWideDevice {
 public:
  using State = CmosState;
  static constexpr const char* kName = "cmos";
  static constexpr uint16_t kPort = 0x70;
  static constexpr uint16_t kPortCount = 2;
  /// Address of the century byte, for FADT.CENTURY.
  static constexpr uint8_t kCenturyAddress = 0x32;

  /// Throws std::invalid_argument, naming the field, for a state the clock cannot be in.
  static void validate(const State& state);

  /// Validates `state`; reads no clock.
  Cmos(const State& state, WallClock& clock);

  State state() const { return state_; }

 protected:
  uint8_t read_register(uint32_t offset) override;
  void write_register(uint32_t offset, uint8_t value) override;

 private:
  bool held() const;
  RtcFormat format() const;
  /// The host's time, in microseconds since 1970.
  int64_t host_us();
  uint8_t read_address(uint8_t address);
  void write_address(uint8_t address, uint8_t value);
  uint8_t read_register_a();
  uint8_t read_register_c();
  /// Writes registers A and B, which together hold the clock or let it run.
  void write_control(uint8_t register_a, uint8_t register_b);
  uint8_t read_time(size_t field);
  void write_time(size_t field, uint8_t value);
  RtcBytes running_time(int64_t clock_us) const;
  /// Lets the clock run on from `shown`, `fraction_us` into that second.
  void start(const RtcBytes& shown, int64_t host_us, int64_t fraction_us);
  /// Brings register C up to `clock_us`.
  void latch_flags(int64_t clock_us);

  State state_;
  WallClock& clock_;
};

}  // namespace kvmsnap
