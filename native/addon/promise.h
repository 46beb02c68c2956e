// A promise that native work settles from another thread.
#pragma once

#include <napi.h>

#include <functional>
#include <memory>
#include <type_traits>
#include <variant>

#include "addon/environment.h"
#include "addon/js_queue.h"

namespace kvmsnap {

/// What work that returns nothing gives.
using Nothing = std::monostate;

/// The outcome of work: its value, or why there is none.
template <typename T>
using Outcome = std::variant<T, Error>;

/// Runs `work` and catches what it throws, whatever it is.
template <typename Work>
auto attempt(Work&& work) {
  using Value = std::invoke_result_t<Work>;
  using Kept = std::conditional_t<std::is_void_v<Value>, Nothing, Value>;
  try {
    if constexpr (std::is_void_v<Value>) {
      work();
      return Outcome<Kept>(Nothing{});
    } else {
      return Outcome<Kept>(work());
    }
  } catch (...) {
    return Outcome<Kept>(current_error());
  }
}

/// Copyable, so that std::function can hold it. Settles at most once; on the environment's thread.
class PendingPromise {
 public:
  explicit PendingPromise(Napi::Env env) : deferred_(Napi::Promise::Deferred::New(env)) {}

  Napi::Promise promise() const { return deferred_.Promise(); }

  template <typename T, typename ToJs>
  void settle(Napi::Env env, const Outcome<T>& outcome, const ToJs& to_js) const {
    if (const Error* error = std::get_if<Error>(&outcome)) {
      deferred_.Reject(Environment::of(env).to_js(env, *error));
      return;
    }
    try {
      if constexpr (std::is_same_v<T, Nothing>) {
        deferred_.Resolve(to_js(env));
      } else {
        deferred_.Resolve(to_js(env, std::get<T>(outcome)));
      }
    } catch (const Napi::Error& error) {
      deferred_.Reject(error.Value());
    } catch (...) {
      deferred_.Reject(Environment::of(env).to_js(env, current_error()));
    }
  }

 private:
  Napi::Promise::Deferred deferred_;
};

}  // namespace kvmsnap
