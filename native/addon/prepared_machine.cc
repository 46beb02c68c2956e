#include "addon/prepared_machine.h"

#include "addon/environment.h"
#include "addon/state_convert.h"
#include "addon/tagged.h"

namespace kvmsnap {

namespace {

// Random, as napi_type_tag_object wants it.
constexpr napi_type_tag kPreparedTag = {0x2f0d7c915be84a63, 0xb1e6409a7cd3582f};

}  // namespace

Napi::Value wrap_prepared(Napi::Env env, MachineConfig config) {
  auto owned = std::make_unique<Prepared>(std::make_shared<const MachineConfig>(std::move(config)));
  auto external = Napi::External<Prepared>::New(env, owned.get(),
                                                [](Napi::Env, Prepared* freed) { delete freed; });
  // Freed by the finalizer from here on.
  static_cast<void>(owned.release());
  external.TypeTag(&kPreparedTag);
  return external;
}

Napi::Value prepare_machine(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&] { return wrap_prepared(info.Env(), to_config(info[0])); });
}

const Prepared& prepared_of(Napi::Env env, const Napi::Value& value) {
  if (!has_tag(env, value, kPreparedTag)) {
    throw Error("ERR_INVALID_ARGUMENT", "the machine must come from prepareMachine or freeze");
  }
  return *value.As<Napi::External<Prepared>>().Data();
}

Napi::Value prepared_state(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&] {
    const MachineConfig& config = *prepared_of(info.Env(), info[0]);
    if (config.state == nullptr) throw Error("ERR_STATE", "the machine was prepared without state");
    return from_state(info.Env(), *config.state);
  });
}

MachineConfig config_of(Napi::Env env, const Napi::Value& value) {
  return value.IsExternal() ? *prepared_of(env, value) : to_config(value);
}

}  // namespace kvmsnap
