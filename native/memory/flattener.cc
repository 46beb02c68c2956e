#include "memory/flattener.h"

#include <utility>

#include "kvm/error.h"
#include "memory/quiet_thread.h"

namespace kvmsnap {

void Flattener::start(Work work) {
  std::lock_guard lock(mutex_);
  if (stopped_ || busy_) return;
  // It has ended, or is about to.
  if (thread_.joinable()) thread_.join();
  busy_ = true;
  try {
    thread_ = quiet_thread("flattening", [this, work = std::move(work)] {
      work(stopped_);
      busy_ = false;
    });
  } catch (...) {
    busy_ = false;
  }
}

void Flattener::stop() {
  stopped_ = true;
  std::lock_guard lock(mutex_);
  if (thread_.joinable()) thread_.join();
}

}  // namespace kvmsnap
