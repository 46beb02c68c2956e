// What a guest writes to a port, on its way to JavaScript. Bounded: a guest that writes faster than
// anyone reads is made to wait, so that it can neither fill the host's memory nor lose a byte.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <vector>

#include "devices/device.h"

namespace kvmsnap {

class OutputBuffer final : public ByteSink {
 public:
  /// `notify` is called, on any thread, when there is something to take after there was not.
  explicit OutputBuffer(std::function<void()> notify) : notify_(std::move(notify)) {}

  /// Never waits: it is called with the devices' lock held.
  void write(std::span<const uint8_t> bytes) override;
  /// Called by the vCPU thread once it holds no lock: returns when there is room, or `give_up()`.
  /// True if that was not at once.
  bool wait_for_room(const std::function<bool()>& give_up);
  /// Makes waiting threads ask `give_up` again.
  void wake();

  std::vector<uint8_t> take();
  /// While it does not flow nothing is notified, and the guest waits when the buffer is full.
  void set_flowing(bool flowing);

 private:
  /// Must hold `mutex_`. True when the caller has to notify.
  bool claim_notification();

  // A guest that loops over `rep outsb` may overshoot by the page that one exit carries.
  static constexpr size_t kRoom = 256 << 10;

  std::function<void()> notify_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<uint8_t> bytes_;
  bool flowing_ = true;
  bool notified_ = false;
};

}  // namespace kvmsnap
