#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "devices/acpi_power.h"
#include "devices/cmos.h"
#include "devices/debug_port.h"
#include "devices/exit_port.h"
#include "devices/i8042.h"
#include "devices/serial.h"
#include "test/devices/fakes.h"

namespace kvmsnap::test {

/// One thing that happens to a device: an access of the guest, or an event from outside.
struct Op {
  enum Kind : uint8_t { Read, Write, Outside };
  static constexpr size_t kEncodedSize = 8;

  Kind kind;
  uint16_t offset;
  uint8_t size;  ///< 1, 2 or 4
  std::array<uint8_t, 4> data;

  /// Any bytes are an operation; offsets reach a little past every device.
  static Op decode(std::span<const uint8_t, kEncodedSize> bytes) {
    return {.kind = static_cast<Kind>(bytes[0] % 3),
            .offset = static_cast<uint16_t>(bytes[1] % 10),
            .size = static_cast<uint8_t>(1 << bytes[2] % 3),
            .data = {bytes[3], bytes[4], bytes[5], bytes[6]}};
  }
  static Op read(uint16_t offset) { return {Read, offset, 1, {}}; }
  static Op write(uint16_t offset, uint8_t value) { return {Write, offset, 1, {value}}; }
  static Op outside(uint8_t a, uint8_t b) { return {Outside, 0, 1, {a, b}}; }
};

/// What surrounds a device. A restored copy gets a new one, at the same time of day.
struct Surroundings {
  Trace trace;
  TracedIrq irq{trace};
  TracedSink sink{trace};
  TracedStop stop{trace};
  SetClock clock;
};

template <typename Device>
Device make(const typename Device::State& state, Surroundings& around);

template <>
inline Serial make<Serial>(const SerialState& state, Surroundings& around) {
  return Serial(state, around.irq, around.sink);
}
template <>
inline I8042 make<I8042>(const I8042State& state, Surroundings& around) {
  return I8042(state, around.irq, around.stop);
}
template <>
inline Cmos make<Cmos>(const CmosState& state, Surroundings& around) {
  return Cmos(state, around.clock);
}
template <>
inline DebugPort make<DebugPort>(const DebugPortState& state, Surroundings& around) {
  return DebugPort(state, around.sink);
}
template <>
inline ExitPort make<ExitPort>(const ExitPortState& state, Surroundings& around) {
  return ExitPort(state, around.stop);
}
template <>
inline AcpiPower make<AcpiPower>(const AcpiPowerState& state, Surroundings& around) {
  return AcpiPower(state, around.stop);
}

/// A device, its surroundings, and a trace of all it does.
template <typename Device>
class Harness {
 public:
  using State = typename Device::State;

  explicit Harness(const State& state = {}) : device(make<Device>(state, around)) {}
  Harness(const State& state, WallTime now) : Harness(state) { around.clock.time = now; }
  Harness(const Harness&) = delete;
  Harness& operator=(const Harness&) = delete;

  void run(const Op& op) {
    std::array<uint8_t, 4> data = op.data;
    switch (op.kind) {
      case Op::Read:
        bus().read(op.offset, std::span(data).first(op.size));
        around.trace.insert(around.trace.end(), data.begin(), data.begin() + op.size);
        break;
      case Op::Write:
        bus().write(op.offset, std::span(data).first(op.size));
        break;
      case Op::Outside:
        outside(op);
        break;
    }
  }

  uint8_t read(uint16_t offset) {
    uint8_t value = 0;
    bus().read(offset, {&value, 1});
    return value;
  }
  void write(uint16_t offset, uint8_t value) { bus().write(offset, {&value, 1}); }

  Surroundings around;
  Device device;

 private:
  BusDevice& bus() { return device; }

  void outside(const Op& op) {
    if constexpr (std::is_same_v<Device, Serial>) {
      const std::array<uint8_t, 20> line{op.data[0], op.data[1], op.data[2], op.data[3]};
      const size_t taken = device.receive(std::span(line).first(op.data[1] % (line.size() + 1)));
      around.trace.push_back(static_cast<uint8_t>(taken));
    } else if constexpr (std::is_same_v<Device, Cmos>) {
      // From microseconds to days, mostly forward.
      const int64_t steps = op.data[0] - 16;
      around.clock.time += std::chrono::microseconds(steps * (int64_t{1} << op.data[1] % 34));
    }
  }
};

}  // namespace kvmsnap::test
