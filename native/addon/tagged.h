// Objects of native classes that JavaScript can neither forge nor mix up.
#pragma once

#include <napi.h>

#include "addon/environment.h"

namespace kvmsnap {

/// Tells a constructor what to wrap, while it lives. JavaScript that calls the constructor by
/// itself finds nothing there.
template <typename T>
class Handover {
 public:
  Handover(const T*& slot, const T& value) : slot_(slot) { slot_ = &value; }
  ~Handover() { slot_ = nullptr; }
  Handover(const Handover&) = delete;
  Handover& operator=(const Handover&) = delete;

 private:
  const T*& slot_;
};

/// Whether `value` is an external value of ours, of this kind.
inline bool has_tag(Napi::Env env, const Napi::Value& value, const napi_type_tag& tag) {
  bool ours = false;
  return value.IsExternal() && napi_check_object_type_tag(env, value, &tag, &ours) == napi_ok &&
         ours;
}

/// Node checks what methods of a class are called on, but not accessors: a getter taken from the
/// prototype may be called on any object, also one that wraps something else.
template <typename T, Napi::Value (T::*getter)(const Napi::CallbackInfo&), const napi_type_tag* tag>
Napi::Value call_tagged(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&] {
    Napi::Value self = info.This();
    if (!self.IsObject() || !self.As<Napi::Object>().CheckTypeTag(tag)) {
      throw Error("ERR_INVALID_ARGUMENT", "illegal invocation: not an object of this class");
    }
    return (T::Unwrap(self.As<Napi::Object>())->*getter)(info);
  });
}

template <typename T, Napi::Value (T::*getter)(const Napi::CallbackInfo&), const napi_type_tag* tag>
Napi::ClassPropertyDescriptor<T> tagged_accessor(const char* name) {
  auto accessor = Napi::PropertyDescriptor::Accessor<call_tagged<T, getter, tag>>(name);
  return static_cast<const napi_property_descriptor&>(accessor);
}

}  // namespace kvmsnap
