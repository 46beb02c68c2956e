// What of a NativeImage differs from others: marks, and comparing with them.
#include "addon/background.h"
#include "addon/convert.h"
#include "addon/image_object.h"
#include "addon/tagged.h"

namespace kvmsnap {

namespace {

// Random, as napi_type_tag_object wants it: tells a mark from any other external value.
constexpr napi_type_tag kMarkTag = {0x61f0c2b7d94e4a18, 0x9c35e7f20b8a46d1};

using Mark = std::shared_ptr<const Provenance>;

const Mark& mark_of(Napi::Env env, const Napi::Value& value) {
  if (!has_tag(env, value, kMarkTag)) {
    throw Error("ERR_INVALID_ARGUMENT", "a mark must come from the mark() of a NativeImage");
  }
  return *value.As<Napi::External<Mark>>().Data();
}

std::vector<Mark> marks_of(Napi::Env env, const Napi::Value& value) {
  Napi::Array array = to_array(value, "marks");
  std::vector<Mark> marks;
  for (uint32_t i = 0; i < array.Length(); i++) marks.push_back(mark_of(env, array.Get(i)));
  return marks;
}

}  // namespace

Napi::Value ImageObject::mark(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&]() -> Napi::Value {
    auto owned = std::make_unique<Mark>(std::make_shared<const Provenance>(*image()));
    auto external = Napi::External<Mark>::New(info.Env(), owned.get(),
                                              [](Napi::Env, Mark* freed) { delete freed; });
    // Freed by the finalizer from here on.
    static_cast<void>(owned.release());
    external.TypeTag(&kMarkTag);
    return external;
  });
}

Napi::Value ImageObject::is_related_to(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&]() -> Napi::Value {
    return Napi::Boolean::New(info.Env(), mark_of(info.Env(), info[0])->related_to(*image()));
  });
}

Napi::Value ImageObject::changed_since(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&] {
    return start_background(
        info.Env(), "kvmsnap-compare", info.Env().Undefined(),
        [memory = memory_, image = image(),
         marks = marks_of(info.Env(), info[0])](WorkControl& control) {
          return Contents{memory, std::make_shared<const Content>(
                                      changed_content(*image, marks, control.cancelled))};
        },
        wrap);
  });
}

}  // namespace kvmsnap
