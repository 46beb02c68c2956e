// What a NativeMachine and its guest tell each other: output, input, ports, MMIO, interrupts.
#include <utility>

#include "addon/convert.h"
#include "addon/environment.h"
#include "addon/machine_object.h"
#include "addon/state_convert.h"

namespace kvmsnap {

void MachineObject::on_output(Napi::Env env, Stream stream) {
  std::vector<uint8_t> bytes = machine_->take_output(stream);
  if (bytes.empty()) return;
  tell(env, "output",
       {Napi::Number::New(env, stream == Stream::Serial ? 0 : 1), from_bytes(env, bytes)});
}

void MachineObject::on_claimed_exit(Napi::Env env, unsigned vcpu, uint32_t question, ClaimId claim,
                                    const OwnedExit& exit) {
  tell(env, "exit",
       {Napi::Number::New(env, vcpu), Napi::Number::New(env, question),
        Napi::Number::New(env, claim), from_exit(env, exit)});
}

Napi::Value MachineObject::serial_input(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&]() -> Napi::Value {
    size_t taken = machine().serial_input(to_bytes_view(info[0], "bytes"));
    return Napi::Number::New(info.Env(), static_cast<double>(taken));
  });
}

void MachineObject::set_output_flow(const Napi::CallbackInfo& info) {
  guard(info.Env(), [&] {
    uint32_t stream = to_uint32(info[0], "stream");
    machine().set_output_flow(stream == 0 ? Stream::Serial : Stream::Debug,
                              to_bool(info[1], "flowing"));
  });
}

Napi::Value MachineObject::claim_ports(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&]() -> Napi::Value {
    uint32_t base = to_uint32(info[0], "base");
    if (base > 0xFFFF) throw Error("ERR_INVALID_ARGUMENT", "ports are numbered 0 to 0xFFFF");
    ClaimId claim =
        machine().claim_ports(static_cast<uint16_t>(base), to_uint32(info[1], "length"));
    return Napi::Number::New(info.Env(), claim);
  });
}

Napi::Value MachineObject::claim_mmio(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&]() -> Napi::Value {
    ClaimId claim = machine().claim_mmio(to_address(info[0], "gpa"), to_uint64(info[1], "length"));
    return Napi::Number::New(info.Env(), claim);
  });
}

void MachineObject::unclaim(const Napi::CallbackInfo& info) {
  guard(info.Env(), [&] { machine().release_claim(to_uint32(info[0], "claim")); });
}

void MachineObject::complete_exit(const Napi::CallbackInfo& info) {
  guard(info.Env(), [&] {
    uint32_t vcpu = to_uint32(info[0], "vcpu");
    uint32_t question = to_uint32(info[1], "question");
    std::variant<std::vector<uint8_t>, Error> answer;
    if (info[2].IsTypedArray()) {
      answer = to_bytes_copy(info[2], "data");
    } else if (!info[2].IsUndefined()) {
      // A handler that threw: a KvmsnapError, by its message.
      answer = Error("ERR_HANDLER", to_object(info[2], "data").Get("message").ToString());
    }
    machine().complete_exit(vcpu, question, std::move(answer));
  });
}

void MachineObject::set_irq_line(const Napi::CallbackInfo& info) {
  guard(info.Env(),
        [&] { machine().set_irq_line(to_uint32(info[0], "gsi"), to_bool(info[1], "level")); });
}

}  // namespace kvmsnap
