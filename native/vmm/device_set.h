// The native devices of one machine, on its port bus.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "devices/serial.h"
#include "kvm/vm_fd.h"
#include "vmm/device_slot.h"
#include "vmm/io_bus.h"

namespace kvmsnap {

struct DeviceChoice {
  bool serial = false;
  bool i8042 = false;
  bool debug_port = false;
  /// 0: none.
  uint16_t exit_port = 0;
  bool cmos = false;
  bool acpi_power = false;

  bool operator==(const DeviceChoice&) const = default;
};

/// Where devices' effects go.
struct DeviceSinks {
  ByteSink& serial_output;
  ByteSink& debug_output;
  StopSink& stop;
};

/// RAM that firmware would report in CMOS.
struct RamSizes {
  uint64_t below_4g = 0;
  uint64_t above_4g = 0;
};

class DeviceSet {
 public:
  /// Every device in its default state. Without an in-kernel irqchip their interrupts go nowhere.
  DeviceSet(const DeviceChoice& choice, const VmFd& vm, bool irqchip, const DeviceSinks& sinks,
            const RamSizes& ram, IoBus& ports);

  /// One lock for all devices, held by whoever uses one: a snapshot needs them and the irqchip at
  /// one instant.
  std::mutex& mutex() { return mutex_; }

  DeviceStates save() const;
  /// All devices change, or none: throws ERR_SNAPSHOT_FORMAT for a state that a device cannot be
  /// in, of a device that this machine lacks, or when one of its devices is not among them.
  void load(const DeviceStates& states);
  /// Queues input for the serial port; returns how many bytes there was room for. Throws ERR_STATE
  /// when there is no port. What waits here is the host's, as in a terminal's buffer: it is not
  /// part of the machine's state.
  size_t serial_input(std::span<const uint8_t> bytes);
  void forget_input() { input_.clear(); }
  /// Hands queued input to the port as far as its FIFO has room: called after each access to a
  /// device.
  void pump_input();

 private:
  template <typename Device>
  TypedDeviceSlot<Device>& add(typename TypedDeviceSlot<Device>::Factory make,
                               const typename Device::State& initial = {});

  std::mutex mutex_;
  std::unique_ptr<IrqLine> serial_line_;
  std::unique_ptr<IrqLine> i8042_line_;
  std::unique_ptr<WallClock> clock_;
  std::vector<std::unique_ptr<DeviceSlot>> slots_;
  TypedDeviceSlot<Serial>* serial_ = nullptr;
  std::vector<uint8_t> input_;
};

}  // namespace kvmsnap
