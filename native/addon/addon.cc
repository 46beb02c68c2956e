// The addon's entry point: what `lib/native/binding.ts` describes.
#include <napi.h>

#include "addon/convert.h"
#include "addon/environment.h"
#include "addon/files.h"
#include "addon/host.h"
#include "addon/image_object.h"
#include "addon/machine_object.h"
#include "addon/prepared_machine.h"
#include "addon/process.h"

namespace kvmsnap {

namespace {

void setup(const Napi::CallbackInfo& info) {
  guard(info.Env(),
        [&] { Environment::of(info.Env()).set_error_class(to_function(info[0], "errorClass")); });
}

Napi::Object initialise(Napi::Env env, Napi::Object exports) {
  env.SetInstanceData(new Environment(env));
  MachineObject::define(env, exports);
  ImageObject::define(env, exports);
  exports["setup"] = Napi::Function::New<setup>(env, "setup");
  exports["host"] = Napi::Function::New<host>(env, "host");
  exports["prepareMachine"] = Napi::Function::New<prepare_machine>(env, "prepareMachine");
  exports["preparedState"] = Napi::Function::New<prepared_state>(env, "preparedState");
  exports["createMachine"] = Napi::Function::New<MachineObject::create>(env, "createMachine");
  exports["imageFromFiles"] = Napi::Function::New<image_from_files>(env, "imageFromFiles");
  exports["sealProcess"] = Napi::Function::New<seal_process>(env, "sealProcess");
  exports["digestFile"] = Napi::Function::New<digest_file_in_background>(env, "digestFile");
  return exports;
}

}  // namespace

NODE_API_MODULE(kvmsnap, initialise)

}  // namespace kvmsnap
