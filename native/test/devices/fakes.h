#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "devices/device.h"

namespace kvmsnap::test {

/// Everything that a device lets the outside see, in order.
using Trace = std::vector<uint8_t>;

class TracedIrq final : public IrqLine {
 public:
  explicit TracedIrq(Trace& trace) : trace_(trace) {}
  void pulse() override {
    ++pulses;
    trace_.push_back('!');
  }
  int pulses = 0;

 private:
  Trace& trace_;
};

class TracedSink final : public ByteSink {
 public:
  explicit TracedSink(Trace& trace) : trace_(trace) {}
  void write(std::span<const uint8_t> data) override {
    bytes.insert(bytes.end(), data.begin(), data.end());
    trace_.push_back('>');
    trace_.insert(trace_.end(), data.begin(), data.end());
  }
  std::vector<uint8_t> bytes;

 private:
  Trace& trace_;
};

class TracedStop final : public StopSink {
 public:
  struct Stop {
    StopReason reason;
    uint32_t code;
    bool operator==(const Stop&) const = default;
  };
  explicit TracedStop(Trace& trace) : trace_(trace) {}
  void stop(StopReason reason, uint32_t code) override {
    stops.push_back({reason, code});
    trace_.push_back('#');
    trace_.push_back(static_cast<uint8_t>(reason));
    for (int i = 0; i < 4; ++i) trace_.push_back(static_cast<uint8_t>(code >> (8 * i)));
  }
  std::vector<Stop> stops;

 private:
  Trace& trace_;
};

class SetClock final : public WallClock {
 public:
  WallTime now() override { return time; }
  /// 2026-11-21 22:30:00 UTC, a Saturday.
  WallTime time{std::chrono::sys_days{std::chrono::year{2026} / 11 / 21} + std::chrono::hours(22) +
                std::chrono::minutes(30)};
};

}  // namespace kvmsnap::test
