// A way from any thread to the environment's: closures that run there in order.
#pragma once

#include <napi.h>

#include <functional>
#include <memory>
#include <mutex>

#include "addon/environment.h"

namespace kvmsnap {

class JsQueue final : public EnvironmentUser, public std::enable_shared_from_this<JsQueue> {
 public:
  using Task = std::function<void(Napi::Env)>;

  /// Its maker holds it: see `ref`.
  static std::shared_ptr<JsQueue> create(Napi::Env env, const char* name);
  ~JsQueue() override;

  /// From any thread. Dropped, with everything it holds, once the environment has ended. An
  /// exception of the task's becomes an uncaught exception of the environment's.
  void post(Task task);
  /// Holds the event loop, and one `unref` lets go again. On the environment's thread, as what follows.
  void ref();
  void unref();
  /// No task runs from here on.
  void close();
  /// The same as soon as nobody holds it: whoever does waits for a task.
  void close_when_idle();

  void environment_ends() override;

 private:
  JsQueue() = default;
  static void run(napi_env env, napi_value, void*, void* data);

  std::mutex mutex_;
  napi_env env_ = nullptr;
  unsigned holders_ = 1;
  bool closing_ = false;
  /// Null once closed: Node frees it with the environment, whoever still holds it.
  napi_threadsafe_function function_ = nullptr;
};

}  // namespace kvmsnap
