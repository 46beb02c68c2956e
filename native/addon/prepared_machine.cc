#include "addon/prepared_machine.h"

#include "addon/environment.h"
#include "addon/state_convert.h"

namespace kvmsnap {

namespace {

// Random, as napi_type_tag_object wants it.
constexpr napi_type_tag kPreparedTag = {0x2f0d7c915be84a63, 0xb1e6409a7cd3582f};

}  // namespace

Napi::Value prepare_machine(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&]() -> Napi::Value {
    auto config = std::make_unique<MachineConfig>(to_config(info[0]));
    auto external = Napi::External<MachineConfig>::New(
        info.Env(), config.get(), [](Napi::Env, MachineConfig* freed) { delete freed; });
    // Freed by the finalizer from here on.
    static_cast<void>(config.release());
    external.TypeTag(&kPreparedTag);
    return external;
  });
}

MachineConfig config_of(Napi::Env env, const Napi::Value& value) {
  if (!value.IsExternal()) return to_config(value);
  bool ours = false;
  napi_status status = napi_check_object_type_tag(env, value, &kPreparedTag, &ours);
  if (status != napi_ok || !ours) {
    throw Error("ERR_INVALID_ARGUMENT", "the machine must come from prepareMachine");
  }
  return *value.As<Napi::External<MachineConfig>>().Data();
}

}  // namespace kvmsnap
