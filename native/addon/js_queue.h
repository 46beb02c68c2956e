// A way from any thread to the environment's: closures that run there in order.
#pragma once

#include <napi.h>

#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <new>
#include <thread>

#include "addon/environment.h"

namespace kvmsnap {

/// Does `work`, which fails only for want of memory, until it succeeds: somebody waits for what it
/// tells, and would for ever.
template <typename Work>
void insist(const Work& work) noexcept {
  for (;;) {
    try {
      return work();
    } catch (const std::bad_alloc&) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
}

class JsQueue final : public EnvironmentUser, public std::enable_shared_from_this<JsQueue> {
 public:
  using Task = std::function<void(Napi::Env)>;

  /// Its maker holds it: see `ref`.
  static std::shared_ptr<JsQueue> create(Napi::Env env, const char* name);
  ~JsQueue() override;

  /// From any thread. Dropped, with everything it holds, once the environment has ended. An
  /// exception of the task's becomes an uncaught exception of the environment's. `task` is copied;
  /// it does not fail.
  template <typename Made>
  void post(const Made& task) noexcept {
    std::unique_ptr<Task> owned;
    insist([&] { owned = std::make_unique<Task>(task); });
    post_owned(std::move(owned));
  }
  /// Holds the event loop, and one `unref` lets go again. On the environment's thread, as what
  /// follows.
  void ref();
  void unref();
  /// No task runs from here on.
  void close();
  /// The same as soon as nobody holds it: whoever does waits for a task.
  void close_when_idle();

  void environment_ends() override;

 private:
  JsQueue() = default;
  void post_owned(std::unique_ptr<Task> task) noexcept;
  static void run(napi_env env, napi_value, void*, void* data);

  std::mutex mutex_;
  napi_env env_ = nullptr;
  unsigned holders_ = 1;
  bool closing_ = false;
  /// Null once closed: Node frees it with the environment, whoever still holds it.
  napi_threadsafe_function function_ = nullptr;
};

}  // namespace kvmsnap
