// The place of one device on the bus. The device in it is replaced when a state is loaded: a
// restore is a construction (STYLE: "Restore is a constructor"), the place stays.
#pragma once

#include <functional>
#include <memory>
#include <stdexcept>

#include "devices/device.h"
#include "vmm/device_fields.h"

namespace kvmsnap {

class DeviceSlot : public BusDevice {
 public:
  virtual const char* name() const = 0;
  virtual DeviceFields save() const = 0;
  /// Builds a device in the state given; throws ERR_SNAPSHOT_FORMAT when it cannot be in it.
  virtual void stage(const DeviceFields& fields) = 0;
  /// Puts the staged device in place. Cannot fail, so that either all devices change or none.
  virtual void commit() = 0;
};

template <typename Device>
class TypedDeviceSlot final : public DeviceSlot {
 public:
  using Factory = std::function<std::unique_ptr<Device>(const typename Device::State&)>;

  TypedDeviceSlot(Factory make, const typename Device::State& initial)
      : make_(std::move(make)), device_(make_(initial)) {}

  Device& device() { return *device_; }

  void read(uint16_t offset, std::span<uint8_t> data) override { device_->read(offset, data); }
  void write(uint16_t offset, std::span<const uint8_t> data) override {
    device_->write(offset, data);
  }
  const char* name() const override { return Device::kName; }
  DeviceFields save() const override { return to_fields(device_->state()); }
  void stage(const DeviceFields& fields) override {
    auto state = from_fields<typename Device::State>(Device::kName, fields);
    try {
      staged_ = make_(state);
    } catch (const std::invalid_argument& error) {
      throw Error("ERR_SNAPSHOT_FORMAT",
                  std::string("device ") + Device::kName + ": " + error.what());
    }
  }
  void commit() override {
    if (staged_) device_ = std::move(staged_);
  }

 private:
  Factory make_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<Device> staged_;
};

}  // namespace kvmsnap
