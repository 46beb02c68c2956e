#include "vmm/output_buffer.h"

#include <utility>

namespace kvmsnap {

bool OutputBuffer::claim_notification() {
  if (!flowing_ || notified_ || bytes_.empty()) return false;
  notified_ = true;
  return true;
}

void OutputBuffer::write(std::span<const uint8_t> bytes) {
  bool notify;
  {
    std::lock_guard lock(mutex_);
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
    notify = claim_notification();
  }
  if (notify) notify_();
}

bool OutputBuffer::wait_for_room(const std::function<bool()>& give_up) {
  std::unique_lock lock(mutex_);
  if (bytes_.size() < kRoom) return false;
  changed_.wait(lock, [&] { return bytes_.size() < kRoom || give_up(); });
  return true;
}

void OutputBuffer::wake() {
  // The lock orders this after a waiter's look at `give_up`, so that it cannot sleep through it.
  { std::lock_guard lock(mutex_); }
  changed_.notify_all();
}

std::vector<uint8_t> OutputBuffer::take() {
  std::vector<uint8_t> taken;
  {
    std::lock_guard lock(mutex_);
    notified_ = false;
    if (!flowing_) return {};
    taken = std::exchange(bytes_, {});
  }
  changed_.notify_all();
  return taken;
}

void OutputBuffer::set_flowing(bool flowing) {
  bool notify;
  {
    std::lock_guard lock(mutex_);
    flowing_ = flowing;
    notify = claim_notification();
  }
  if (notify) notify_();
}

}  // namespace kvmsnap
