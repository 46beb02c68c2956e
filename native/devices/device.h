#pragma once

#include <chrono>
#include <cstdint>
#include <span>

namespace kvmsnap {

/// A device on the port I/O or MMIO bus. A device is a state machine: it owns no thread, fd or
/// clock, and is not thread-safe. The bus serialises calls to each device.
class BusDevice {
 public:
  virtual ~BusDevice() = default;

  /// Answers a read of `data.size()` bytes (1, 2, 4 or 8) at `offset` from the device's base.
  /// Fills every byte, with 0xFF where nothing answers, as an undriven ISA bus does.
  virtual void read(uint16_t offset, std::span<uint8_t> data) = 0;
  virtual void write(uint16_t offset, std::span<const uint8_t> data) = 0;

 protected:
  BusDevice() = default;
  BusDevice(const BusDevice&) = default;
  BusDevice& operator=(const BusDevice&) = default;
};

/// A device with 8-bit registers. A wider access is that many accesses to consecutive registers,
/// as an ISA bus splits it for an 8-bit card.
class ByteWideDevice : public BusDevice {
 public:
  void read(uint16_t offset, std::span<uint8_t> data) final;
  void write(uint16_t offset, std::span<const uint8_t> data) final;

 protected:
  virtual uint8_t read_register(uint32_t offset) = 0;
  virtual void write_register(uint32_t offset, uint8_t value) = 0;
};

/// An interrupt input of the machine's interrupt controllers, used as an edge.
class IrqLine {
 public:
  virtual ~IrqLine() = default;
  /// Raises and lowers the line; the edge is latched by the interrupt controller on return, so
  /// that no interrupt is in flight outside the irqchip's saved state.
  virtual void pulse() = 0;
};

/// Where a device's output goes, in the order written.
class ByteSink {
 public:
  virtual ~ByteSink() = default;
  virtual void write(std::span<const uint8_t> bytes) = 0;
};

enum class StopReason : uint8_t {
  ExitPort,  ///< the guest wrote its exit code
  Reset,     ///< the guest pulsed the reset line
  PowerOff,  ///< the guest entered ACPI S5
};

/// Where a device asks for the machine to stop. The request takes effect after the access.
class StopSink {
 public:
  virtual ~StopSink() = default;
  /// `code` is what the guest wrote to the exit port, otherwise 0.
  virtual void stop(StopReason reason, uint32_t code) = 0;
};

using WallTime = std::chrono::sys_time<std::chrono::microseconds>;

/// The host's UTC time. It may step in either direction between calls.
class WallClock {
 public:
  virtual ~WallClock() = default;
  virtual WallTime now() = 0;
};

}  // namespace kvmsnap
