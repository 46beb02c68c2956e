#include "vmm/aside.h"

#include <atomic>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>

#include "vmm/kick.h"

namespace kvmsnap {

struct Aside::Task {
  std::function<void()> work;
  std::atomic<bool> begun = false;
  std::atomic<bool> done = false;
  std::exception_ptr failure;

  /// False when it has been begun already.
  bool run() {
    if (begun.exchange(true)) return false;
    try {
      work();
    } catch (...) {
      failure = std::current_exception();
    }
    done = true;
    done.notify_all();
    return true;
  }
};

namespace {

// One for the process, for as long as it lives: there is at most one reset at a time on each of
// Node's threads, and who finds it busy does the work himself.
class Helper {
 public:
  static Helper& instance() {
    static Helper& helper = *new Helper();
    return helper;
  }

  void offer(std::shared_ptr<Aside::Task> task) {
    {
      std::lock_guard lock(mutex_);
      tasks_.push_back(std::move(task));
    }
    offered_.notify_one();
  }

 private:
  Helper() {
    // Signals are for threads that expect them.
    BlockedSignals blocked;
    std::thread([this] { serve(); }).detach();
  }

  void serve() {
    std::unique_lock lock(mutex_);
    for (;;) {
      offered_.wait(lock, [&] { return !tasks_.empty(); });
      std::shared_ptr<Aside::Task> task = std::move(tasks_.front());
      tasks_.pop_front();
      lock.unlock();
      task->run();
      task.reset();
      lock.lock();
    }
  }

  std::mutex mutex_;
  std::condition_variable offered_;
  std::deque<std::shared_ptr<Aside::Task>> tasks_;
};

}  // namespace

Aside::Aside(std::function<void()> work) : task_(std::make_shared<Task>()) {
  task_->work = std::move(work);
  try {
    Helper::instance().offer(task_);
  } catch (...) {
    // No thread, or no memory, to be had for it: `finish` does the work.
  }
}

Aside::~Aside() {
  if (!task_->run()) task_->done.wait(false);
}

void Aside::finish() {
  if (!task_->run()) task_->done.wait(false);
  if (std::exception_ptr failure = std::exchange(task_->failure, nullptr)) {
    std::rethrow_exception(failure);
  }
}

}  // namespace kvmsnap
