#include "addon/js_queue.h"

namespace kvmsnap {

std::shared_ptr<JsQueue> JsQueue::create(Napi::Env env, const char* name) {
  std::shared_ptr<JsQueue> queue(new JsQueue());
  queue->env_ = env;
  napi_status status =
      napi_create_threadsafe_function(env, nullptr, nullptr, Napi::String::New(env, name), 0, 1,
                                      nullptr, nullptr, nullptr, run, &queue->function_);
  if (status != napi_ok) throw Error("ERR_SYSTEM", "no thread-safe function could be created");
  Environment::of(env).add(queue);
  return queue;
}

JsQueue::~JsQueue() {
  // May be any thread's: only what is safe on any thread.
  if (function_ != nullptr) napi_release_threadsafe_function(function_, napi_tsfn_release);
}

void JsQueue::post_owned(std::unique_ptr<Task> task) noexcept {
  std::lock_guard lock(mutex_);
  if (function_ != nullptr &&
      napi_call_threadsafe_function(function_, task.get(), napi_tsfn_nonblocking) == napi_ok) {
    // `run` frees it.
    static_cast<void>(task.release());
  }
}

void JsQueue::run(napi_env env, napi_value, void*, void* data) {
  std::unique_ptr<Task> task(static_cast<Task*>(data));
  // No environment: it is being torn down, and the task is only to be freed.
  if (env == nullptr) return;
  Napi::HandleScope scope(env);
  try {
    (*task)(env);
  } catch (const Napi::Error& error) {
    napi_fatal_exception(env, error.Value());
  } catch (const std::exception& error) {
    napi_fatal_exception(env, Napi::Error::New(env, error.what()).Value());
  }
}

void JsQueue::ref() {
  if (holders_++ == 0 && function_ != nullptr) napi_ref_threadsafe_function(env_, function_);
}

void JsQueue::unref() {
  if (--holders_ > 0) return;
  if (function_ != nullptr) napi_unref_threadsafe_function(env_, function_);
  if (closing_) close();
}

void JsQueue::close_when_idle() {
  closing_ = true;
  if (holders_ == 0) close();
}

void JsQueue::close() {
  napi_threadsafe_function function;
  {
    std::lock_guard lock(mutex_);
    function = std::exchange(function_, nullptr);
  }
  if (function == nullptr) return;
  Environment::of(env_).remove(this);
  napi_release_threadsafe_function(function, napi_tsfn_release);
}

void JsQueue::environment_ends() {
  // Node closes the function itself.
  std::lock_guard lock(mutex_);
  function_ = nullptr;
}

}  // namespace kvmsnap
