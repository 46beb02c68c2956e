// A thread for work that may take its time, one piece at a time.
#pragma once

#include <atomic>
#include <functional>
#include <mutex>
#include <thread>

namespace kvmsnap {

/// Thread-safe.
class Flattener {
 public:
  using Work = std::function<void(const std::atomic<bool>& cancelled)>;

  Flattener() = default;
  Flattener(const Flattener&) = delete;
  Flattener& operator=(const Flattener&) = delete;
  ~Flattener() { stop(); }

  /// Runs `work`, which does not throw, unless other work is at it. Without a thread to be had
  /// nothing happens.
  void start(Work work);
  bool is_busy() const { return busy_; }
  /// Cancels what is at work and waits for it. Nothing is started any more.
  void stop();

 private:
  std::mutex mutex_;
  std::thread thread_;
  std::atomic<bool> busy_ = false;
  std::atomic<bool> stopped_ = false;
};

}  // namespace kvmsnap
