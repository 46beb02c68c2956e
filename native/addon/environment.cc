#include "addon/environment.h"

#include <vector>

namespace kvmsnap {

Environment::Environment(Napi::Env env) : env_(env) { napi_add_env_cleanup_hook(env_, end, this); }

Environment::~Environment() {
  napi_remove_env_cleanup_hook(env_, end, this);
  // References must not be touched once the environment's heap is gone.
  machine_class.SuppressDestruct();
  image_class.SuppressDestruct();
  error_class_.SuppressDestruct();
}

void Environment::end(void* self) {
  auto& environment = *static_cast<Environment*>(self);
  // All are held before the first is told: what one lets go of may be another's last reference.
  std::vector<std::shared_ptr<EnvironmentUser>> users;
  for (const auto& [address, weak] : environment.users_) {
    if (auto user = weak.lock()) users.push_back(std::move(user));
  }
  environment.users_.clear();
  for (const auto& user : users) user->environment_ends();
}

void Environment::set_error_class(Napi::Function constructor) {
  error_class_ = Napi::Persistent(constructor);
}

Napi::Value Environment::to_js(Napi::Env env, const Error& error) const {
  if (error_class_.IsEmpty()) return Napi::Error::New(env, error.what()).Value();
  Napi::Object options = Napi::Object::New(env);
  if (error.error_number() != 0) options["errno"] = error.error_number();
  if (!error.syscall().empty()) options["syscall"] = error.syscall();
  return error_class_.New(
      {Napi::String::New(env, error.code()), Napi::String::New(env, error.what()), options});
}

}  // namespace kvmsnap
