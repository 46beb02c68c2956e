// Work that may be done beside the caller's, when a processor is free for it.
#pragma once

#include <functional>
#include <memory>

namespace kvmsnap {

/// Begins `work` on a thread that the process has for such work, while the caller goes on. For what
/// waits in the kernel for some tens of microseconds. Must be finished before it is destroyed.
class Aside {
 public:
  explicit Aside(std::function<void()> work);
  Aside(const Aside&) = delete;
  Aside& operator=(const Aside&) = delete;
  /// Waits; in vain if `finish` has not been called and the caller is being unwound.
  ~Aside();

  /// The work is done when this returns: here, if nobody has begun it. What it threw comes through.
  void finish();

  struct Task;

 private:
  std::shared_ptr<Task> task_;
};

}  // namespace kvmsnap
