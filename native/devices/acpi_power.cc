#include "devices/acpi_power.h"

#include <stdexcept>

namespace kvmsnap {
namespace {

constexpr uint32_t kSleepControl = 0;
constexpr uint32_t kSleepStatus = 1;

constexpr uint8_t kSleepTypeMask = 0x1C;
constexpr unsigned kSleepTypeShift = 2;
constexpr uint8_t kSleepEnable = 0x20;
constexpr uint8_t kWakeStatus = 0x80;

constexpr uint8_t kResetNow = 0x04;

}  // namespace

void AcpiPower::validate(const State& state) {
  if (state.sleep_control & ~kSleepTypeMask) {
    throw std::invalid_argument("acpi_power: sleep_control has bits other than SLP_TYPx");
  }
  if (state.sleep_status & ~kWakeStatus) {
    throw std::invalid_argument("acpi_power: sleep_status has bits other than WAK_STS");
  }
}

AcpiPower::AcpiPower(const State& state, StopSink& stop) : state_(state), stop_(stop) {
  validate(state);
}

uint8_t AcpiPower::read_register(uint32_t offset) {
  switch (offset) {
    case kSleepControl:
      return state_.sleep_control;
    case kSleepStatus:
      return state_.sleep_status;
    case kResetOffset:
      return 0;
    default:
      return 0xFF;
  }
}

void AcpiPower::write_register(uint32_t offset, uint8_t value) {
  switch (offset) {
    case kSleepControl:
      state_.sleep_control = value & kSleepTypeMask;
      if ((value & kSleepEnable) && (state_.sleep_control >> kSleepTypeShift) == kSleepTypeS5) {
        stop_.stop(StopReason::PowerOff, 0);
      }
      break;
    case kSleepStatus:
      state_.sleep_status &= ~(value & kWakeStatus);  // write 1 to clear
      break;
    case kResetOffset:
      if (value & kResetNow) stop_.stop(StopReason::Reset, 0);
      break;
    default:
      break;
  }
}

}  // namespace kvmsnap
