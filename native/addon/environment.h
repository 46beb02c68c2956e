// What the addon keeps for each Node environment (the main thread and every worker have one).
#pragma once

#include <napi.h>

#include <memory>
#include <unordered_map>

#include "kvm/error.h"

namespace kvmsnap {

/// Something with threads that call into an environment, and must stop doing so when it ends.
class EnvironmentUser {
 public:
  virtual ~EnvironmentUser() = default;
  /// Called on the environment's thread while it is torn down. No JavaScript may run any more.
  virtual void environment_ends() = 0;
};

class Environment {
 public:
  static Environment& of(Napi::Env env) { return *env.GetInstanceData<Environment>(); }

  explicit Environment(Napi::Env env);
  ~Environment();

  void set_error_class(Napi::Function constructor);
  /// An instance of the KvmsnapError class that JavaScript handed over.
  Napi::Value to_js(Napi::Env env, const Error& error) const;

  /// Held weakly: a user may be freed on any thread, even while the environment ends.
  void add(const std::shared_ptr<EnvironmentUser>& user) { users_[user.get()] = user; }
  void remove(EnvironmentUser* user) { users_.erase(user); }

  Napi::FunctionReference machine_class;
  Napi::FunctionReference image_class;

 private:
  static void end(void* self);

  napi_env env_;
  Napi::FunctionReference error_class_;
  std::unordered_map<EnvironmentUser*, std::weak_ptr<EnvironmentUser>> users_;
};

/// Runs `body` and turns native exceptions into JavaScript ones, so that none crosses the boundary.
template <typename Body>
auto guard(Napi::Env env, Body&& body) -> decltype(body()) {
  try {
    return body();
  } catch (const Napi::Error&) {
    throw;
  } catch (...) {
    throw Napi::Error(env, Environment::of(env).to_js(env, current_error()));
  }
}

}  // namespace kvmsnap
