// Long work on a thread of its own: a promise, progress, cancellation.
#pragma once

#include <napi.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <string>

#include "addon/convert.h"
#include "addon/js_queue.h"
#include "addon/promise.h"
#include "memory/image_writer.h"
#include "memory/quiet_thread.h"

namespace kvmsnap {

/// What the environment's thread owns of the work. When the environment ends the work is cancelled,
/// so that nobody writes files for a caller that is gone.
class BackgroundWork final : public EnvironmentUser {
 public:
  explicit BackgroundWork(std::shared_ptr<WorkControl> control) : control_(std::move(control)) {}
  void environment_ends() override {
    control_->cancelled = true;
    // On its own thread for the last time: afterwards the object may be freed on any.
    progress.Reset();
  }

  Napi::FunctionReference progress;

 private:
  std::shared_ptr<WorkControl> control_;
};

/// Starts `work(control)` and returns `{ done: Promise, cancel() }`. `progress`, a function or
/// undefined, is called with the bytes done so far, at most every 50 ms.
template <typename Work, typename ToJs>
Napi::Value start_background(Napi::Env env, const char* name, const Napi::Value& progress,
                             const Work& work, ToJs to_js) {
  auto control = std::make_shared<WorkControl>();
  auto registration = std::make_shared<BackgroundWork>(control);
  if (!progress.IsUndefined()) {
    registration->progress = Napi::Persistent(to_function(progress, "progress"));
  }
  auto queue = JsQueue::create(env, name);
  Environment::of(env).add(registration);
  PendingPromise promise(env);

  if (!registration->progress.IsEmpty()) {
    auto last = std::make_shared<std::atomic<int64_t>>(0);
    control->on_progress = [queue, registration, last, bare = control.get()] {
      int64_t now = std::chrono::duration_cast<std::chrono::milliseconds>(
                        std::chrono::steady_clock::now().time_since_epoch())
                        .count();
      int64_t before = last->load(std::memory_order_relaxed);
      if (now - before < 50 || !last->compare_exchange_strong(before, now)) return;
      uint64_t bytes = bare->done_bytes.load(std::memory_order_relaxed);
      queue->post([registration, bytes](Napi::Env task_env) {
        registration->progress.Call({Napi::Number::New(task_env, static_cast<double>(bytes))});
      });
    };
  }

  auto finish = [=](Napi::Env task_env, const auto& outcome) {
    registration->progress.Reset();
    Environment::of(task_env).remove(registration.get());
    promise.settle(task_env, outcome, to_js);
    queue->close();
  };
  auto run = [=] {
    auto result = attempt([&] { return work(*control); });
    // It refers to the registration, which refers to `control`.
    control->on_progress = nullptr;
    std::shared_ptr<decltype(result)> outcome;
    insist([&] { outcome = std::make_shared<decltype(result)>(std::move(result)); });
    queue->post([=](Napi::Env task_env) { finish(task_env, *outcome); });
  };
  try {
    quiet_thread("background work", run).detach();
  } catch (const Error& error) {
    control->on_progress = nullptr;
    using Result = decltype(attempt([&] { return work(*control); }));
    finish(env, Result(error));
  }

  Napi::Object handle = Napi::Object::New(env);
  handle["done"] = promise.promise();
  handle["cancel"] = Napi::Function::New(
      env, [control](const Napi::CallbackInfo&) { control->cancelled = true; }, "cancel");
  return handle;
}

}  // namespace kvmsnap
