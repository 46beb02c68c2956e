#pragma once

#include <cstdint>
#include <type_traits>

namespace kvmsnap {

/// Sleep registers of hardware-reduced ACPI (ACPI 6.5, section 4.8.3.7).
struct AcpiPowerState {
  /// Sleep control: SLP_TYPx (4:2). SLP_EN (5) is write-only.
  uint8_t sleep_control = 0;
  /// Sleep status: WAK_STS (7). Never set by this machine, which wakes by restore alone.
  uint8_t sleep_status = 0;

  bool operator==(const AcpiPowerState&) const = default;
};

/// Calls `visit(name, field)` for each field in declaration order. Names are those of the snapshot
/// format: added to, never renamed.
template <typename State, typename Visit>
requires std::is_same_v<std::remove_const_t<State>, AcpiPowerState>
void for_each_field(State& state, Visit&& visit) {
  visit("sleep_control", state.sleep_control);
  visit("sleep_status", state.sleep_status);
}

}  // namespace kvmsnap
