#include "vmm/device_set.h"

#include <algorithm>
#include <chrono>

#include "devices/acpi_power.h"
#include "devices/cmos.h"
#include "devices/debug_port.h"
#include "devices/exit_port.h"
#include "devices/i8042.h"

namespace kvmsnap {

namespace {

constexpr size_t kInputRoom = 64 << 10;

// An input of the in-kernel irqchip. KVM_IRQ_LINE and not an irqfd: KVM delivers an irqfd of a PIC
// or IOAPIC pin from a work queue, so that an interrupt could be in neither the saved device nor
// the saved irqchip.
class KvmIrqLine final : public IrqLine {
 public:
  KvmIrqLine(const VmFd& vm, bool connected, uint32_t gsi)
      : vm_(vm), connected_(connected), gsi_(gsi) {}
  void pulse() override {
    if (!connected_) return;
    vm_.irq_line(gsi_, true);
    vm_.irq_line(gsi_, false);
  }

 private:
  const VmFd& vm_;
  bool connected_;
  uint32_t gsi_;
};

class HostClock final : public WallClock {
 public:
  WallTime now() override {
    return std::chrono::time_point_cast<std::chrono::microseconds>(
        std::chrono::system_clock::now());
  }
};

}  // namespace

template <typename Device>
TypedDeviceSlot<Device>& DeviceSet::add(typename TypedDeviceSlot<Device>::Factory make,
                                        const typename Device::State& initial) {
  auto slot = std::make_unique<TypedDeviceSlot<Device>>(std::move(make), initial);
  auto& reference = *slot;
  slots_.push_back(std::move(slot));
  return reference;
}

DeviceSet::DeviceSet(const DeviceChoice& choice, const VmFd& vm, bool irqchip,
                     const DeviceSinks& sinks, const RamSizes& ram, IoBus& ports)
    : serial_line_(std::make_unique<KvmIrqLine>(vm, irqchip, Serial::kIrq)),
      i8042_line_(std::make_unique<KvmIrqLine>(vm, irqchip, I8042::kIrq)),
      clock_(std::make_unique<HostClock>()) {
  ByteSink& serial_output = sinks.serial_output;
  ByteSink& debug_output = sinks.debug_output;
  StopSink& stop = sinks.stop;
  if (choice.serial) {
    serial_ = &add<Serial>([this, &serial_output](const SerialState& state) {
      return std::make_unique<Serial>(state, *serial_line_, serial_output);
    });
    ports.attach(Serial::kPort, Serial::kPortCount, *serial_);
  }
  if (choice.i8042) {
    auto& slot = add<I8042>([this, &stop](const I8042State& state) {
      return std::make_unique<I8042>(state, *i8042_line_, stop);
    });
    ports.attach(I8042::kPort + I8042::kDataOffset, 1, slot, I8042::kDataOffset);
    ports.attach(I8042::kPort + I8042::kCommandOffset, 1, slot, I8042::kCommandOffset);
  }
  if (choice.debug_port) {
    auto& slot = add<DebugPort>([&debug_output](const DebugPortState& state) {
      return std::make_unique<DebugPort>(state, debug_output);
    });
    ports.attach(DebugPort::kPort, DebugPort::kPortCount, slot);
  }
  if (choice.exit_port != 0) {
    auto& slot = add<ExitPort>(
        [&stop](const ExitPortState& state) { return std::make_unique<ExitPort>(state, stop); });
    ports.attach(choice.exit_port, ExitPort::kPortCount, slot);
  }
  if (choice.cmos) {
    CmosState initial;
    set_memory_size(initial, ram.below_4g, ram.above_4g);
    auto& slot = add<Cmos>(
        [this](const CmosState& state) { return std::make_unique<Cmos>(state, *clock_); }, initial);
    ports.attach(Cmos::kPort, Cmos::kPortCount, slot);
  }
  if (choice.acpi_power) {
    auto& slot = add<AcpiPower>(
        [&stop](const AcpiPowerState& state) { return std::make_unique<AcpiPower>(state, stop); });
    ports.attach(AcpiPower::kPort, AcpiPower::kPortCount, slot);
    ports.attach(AcpiPower::kResetPort, 1, slot, AcpiPower::kResetOffset);
  }
}

DeviceStates DeviceSet::save() const {
  DeviceStates states;
  for (const auto& slot : slots_) states[slot->name()] = slot->save();
  return states;
}

void DeviceSet::load(const DeviceStates& states) {
  for (const auto& slot : slots_) {
    auto state = states.find(slot->name());
    if (state == states.end()) {
      throw Error("ERR_SNAPSHOT_FORMAT",
                  std::string("the state has no device ") + slot->name() + ", the machine does");
    }
    slot->stage(state->second);
  }
  if (states.size() != slots_.size()) {
    throw Error("ERR_SNAPSHOT_FORMAT", "the state has a device that the machine has not");
  }
  for (const auto& slot : slots_) slot->commit();
}

size_t DeviceSet::serial_input(std::span<const uint8_t> bytes) {
  if (serial_ == nullptr) {
    throw Error("ERR_STATE", "the machine has no serial port: create it with one");
  }
  size_t taken = std::min(bytes.size(), kInputRoom - input_.size());
  input_.insert(input_.end(), bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(taken));
  pump_input();
  return taken;
}

void DeviceSet::pump_input() {
  if (input_.empty()) return;
  size_t taken = serial_->device().receive(input_);
  input_.erase(input_.begin(), input_.begin() + static_cast<ptrdiff_t>(taken));
}

}  // namespace kvmsnap
