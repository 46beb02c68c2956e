// Memory, slots, registers and state of a NativeMachine.
#include "addon/machine_jobs.h"

#include <cstring>

#include "addon/convert.h"
#include "addon/environment.h"
#include "addon/image_object.h"
#include "addon/prepared_machine.h"
#include "addon/state_convert.h"
#include "memory/quiet_thread.h"

namespace kvmsnap {

namespace {

using Access = Machine::Access;

struct FrozenMachine {
  MachineConfig config;
  FrozenMemory memory;
  std::chrono::nanoseconds pause{0};
};
/// Shared by who finishes the freeze and who tells of it.
using FrozenHere = std::shared_ptr<const FrozenMachine>;

Napi::Value bytes_to_js(Napi::Env env, const std::vector<uint8_t>& bytes) {
  return from_bytes(env, bytes);
}

Napi::Value life_to_js(Napi::Env env, uint32_t life) { return Napi::Number::New(env, life); }

VcpuSection to_section(const Napi::Value& value) {
  std::string name = value.ToString();
  std::optional<VcpuSection> section = vcpu_section_by_name(name);
  if (!section) throw Error("ERR_INVALID_ARGUMENT", "there is no vCPU section " + name);
  return *section;
}

Napi::Value frozen_to_js(Napi::Env env, const FrozenHere& here) {
  const FrozenMachine& frozen = *here;
  Napi::Object result = Napi::Object::New(env);
  result["machine"] = wrap_prepared(env, frozen.config);
  result["image"] = ImageObject::wrap(env, {.memory = frozen.memory, .content = nullptr});
  if (frozen.config.state->stopped) {
    result["stopped"] = from_stopped(env, *frozen.config.state->stopped);
  }
  result["pauseUs"] = static_cast<double>(frozen.pause.count()) / 1000;
  return result;
}

// On a thread that keeps the machine until then; on this one when there is none to be had.
template <typename Done>
void finish_elsewhere(std::shared_ptr<Machine> machine, FrozenHere frozen, const Done& done) {
  auto work = [machine = std::move(machine), frozen = std::move(frozen), done] {
    done(attempt([&] {
      frozen->memory.late->finish();
      return frozen;
    }));
  };
  try {
    quiet_thread("finishing a freeze", work).detach();
  } catch (const Error&) {
    work();
  }
}

}  // namespace

Napi::Value MachineObject::read_memory(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&]() -> Napi::Value {
    uint64_t gpa = to_address(info[0], "gpa");
    uint64_t length = to_copy_length(info[1], "length");
    auto buffer = Napi::Buffer<uint8_t>::New(info.Env(), length);
    machine().read_memory(gpa, {buffer.Data(), length});
    return buffer;
  });
}

void MachineObject::write_memory(const Napi::CallbackInfo& info) {
  guard(info.Env(), [&] {
    machine().write_memory(to_address(info[0], "gpa"), to_bytes_view(info[1], "bytes"));
  });
}

Napi::Value MachineObject::regions(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&] { return from_regions(info.Env(), machine().memory().regions()); });
}

Napi::Value MachineObject::add_slot(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&] {
    return standing_job(
        info.Env(), Access::Change,
        [spec = to_region(info[0])](Machine& machine) { machine.add_slot(spec); }, undefined);
  });
}

Napi::Value MachineObject::remove_slot(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&] {
    return standing_job(
        info.Env(), Access::Change,
        [slot = to_uint32(info[0], "slot")](Machine& machine) { machine.remove_slot(slot); },
        undefined);
  });
}

Napi::Value MachineObject::set_slot_flags(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&] {
    return standing_job(
        info.Env(), Access::Change,
        [slot = to_uint32(info[0], "slot"), flags = to_uint32(info[1], "flags")](Machine& machine) {
          machine.set_slot_flags(slot, flags);
        },
        undefined);
  });
}

Napi::Value MachineObject::get_dirty_log(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&] {
    return promise_job(
        info.Env(), [&](Crew::Job job) { machine().submit(std::move(job)); },
        [slot = to_uint32(info[0], "slot")](Machine& machine) { return machine.dirty_log(slot); },
        [](Napi::Env env, const std::vector<uint64_t>& words) {
          return from_bytes(env,
                            {reinterpret_cast<const uint8_t*>(words.data()), words.size() * 8});
        });
  });
}

Napi::Value MachineObject::clear_dirty_log(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&] {
    std::span<const uint8_t> bytes = to_bytes_view(info[3], "bitmap");
    std::vector<uint64_t> words((bytes.size() + 7) / 8);
    if (!bytes.empty()) std::memcpy(words.data(), bytes.data(), bytes.size());
    return promise_job(
        info.Env(), [&](Crew::Job job) { machine().submit(std::move(job)); },
        [slot = to_uint32(info[0], "slot"), first = to_uint64(info[1], "firstPage"),
         pages = to_uint32(info[2], "pages"),
         words](Machine& machine) mutable { machine.clear_dirty_log(slot, first, pages, words); },
        undefined);
  });
}

Napi::Value MachineObject::get_vcpu(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&] {
    return short_job(
        info.Env(), Access::Inspect,
        [vcpu = to_uint32(info[0], "vcpu"), section = to_section(info[1])](Machine& machine) {
          return machine.get_section(vcpu, section);
        },
        bytes_to_js);
  });
}

Napi::Value MachineObject::set_vcpu(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&] {
    return short_job(
        info.Env(), Access::Change,
        [vcpu = to_uint32(info[0], "vcpu"), section = to_section(info[1]),
         bytes = to_bytes_copy(info[2], "bytes")](Machine& machine) {
          machine.set_section(vcpu, section, bytes);
        },
        undefined);
  });
}

Napi::Value MachineObject::set_irqchip(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&] {
    return short_job(
        info.Env(), Access::Change,
        [bytes = to_bytes_copy(info[0], "bytes")](Machine& machine) { machine.set_irqchip(bytes); },
        undefined);
  });
}

Napi::Value MachineObject::end_if_halted(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&] {
    return promise_job(
        info.Env(), [&](Crew::Job job) { machine().submit(std::move(job)); },
        [](Machine& machine) { machine.end_if_halted(); }, undefined);
  });
}

Napi::Value MachineObject::get_msrs(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&] {
    if (!info[1].IsTypedArray() ||
        info[1].As<Napi::TypedArray>().TypedArrayType() != napi_uint32_array) {
      throw Error("ERR_INVALID_ARGUMENT", "indices must be a Uint32Array");
    }
    auto array = info[1].As<Napi::Uint32Array>();
    std::vector<uint32_t> indices(array.Data(), array.Data() + array.ElementLength());
    return short_job(
        info.Env(), Access::Inspect,
        [vcpu = to_uint32(info[0], "vcpu"), indices](Machine& machine) {
          return machine.get_msrs(vcpu, indices);
        },
        bytes_to_js);
  });
}

Napi::Value MachineObject::run_vcpu(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  return guard(env, [&]() -> Napi::Value {
    uint32_t vcpu = to_uint32(info[0], "vcpu");
    Napi::Object options = to_object(info[1], "options");
    bool dispatch = to_bool(options.Get("dispatch"), "dispatch");
    bool single_step = to_bool(options.Get("singleStep"), "singleStep");
    PendingPromise promise(env);
    auto done = [over = over_, deliver = delivery(promise, from_exit)](
                    const std::variant<OwnedExit, Error>& exit) {
      Outcome<OwnedExit> outcome = exit;
      if (*over) outcome = Error("ERR_CLOSED", "the machine was closed");
      deliver(std::move(outcome));
    };
    return promised(env, promise, [&] { machine().run_solo(vcpu, dispatch, single_step, done); });
  });
}

void MachineObject::answer_vcpu(const Napi::CallbackInfo& info) {
  guard(info.Env(),
        [&] { machine().answer_solo(to_uint32(info[0], "vcpu"), to_bytes_copy(info[1], "data")); });
}

Napi::Value MachineObject::save_state(const Napi::CallbackInfo& info) {
  return short_job(
      info.Env(), Access::Inspect, [](Machine& machine) { return machine.save_state(); },
      from_state);
}

Napi::Value MachineObject::load_state(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&] {
    return short_job(
        info.Env(), Access::Change,
        [state = to_state(info[0])](Machine& machine) { return machine.load_state(state); },
        life_to_js);
  });
}

// A guest that runs goes on before all is copied, which is left to a thread of its own.
Napi::Value MachineObject::freeze(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&] {
    PendingPromise promise(info.Env());
    auto asked = std::make_shared<std::chrono::steady_clock::time_point>();
    auto work = [pause_after = info[0].ToString().Utf8Value() == "pause", asked](Machine& machine) {
      // What may fail comes before the freeze, which may leave the machine paused.
      auto result = std::make_shared<FrozenMachine>();
      result->config = machine.blueprint();
      Frozen frozen = machine.freeze(*asked, pause_after);
      result->config.state = std::move(frozen.state);
      result->memory = std::move(frozen.memory);
      result->pause = frozen.pause;
      return FrozenHere(std::move(result));
    };
    auto job = [bare = machine_.get(), over = over_, deliver = delivery(promise, frozen_to_js),
                work](bool cancelled) mutable {
      auto result = attempt_job(*bare, cancelled || *over, work);
      const auto* frozen = std::get_if<FrozenHere>(&result);
      if (frozen == nullptr || (*frozen)->memory.late == nullptr) return deliver(std::move(result));
      insist([&] { finish_elsewhere(bare->shared_from_this(), *frozen, deliver); });
    };
    return promised(info.Env(), promise, [&] {
      machine().submit_freeze(Crew::Job(job),
                              [asked] { *asked = std::chrono::steady_clock::now(); });
    });
  });
}

template <typename Work>
Napi::Value MachineObject::reset_job(Napi::Env env, const Prepared& instant, ClockPolicy clock,
                                     bool is_short, Work work) {
  if (is_short) {
    if (auto result = try_here(Access::Reset, work)) {
      if (const Error* error = std::get_if<Error>(&*result)) throw Error(*error);
      return life_to_js(env, std::get<0>(*result));
    }
  }
  return promise_job(
      env, [&](Crew::Job job) { machine().submit_reset(*instant, clock, std::move(job)); }, work,
      life_to_js);
}

Napi::Value MachineObject::reset(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&] {
    const Prepared& instant = prepared_of(info.Env(), info[0]);
    std::shared_ptr<const Image> image = image_of(info.Env(), info[1]);
    ClockPolicy clock = to_clock_policy(info[2]);
    // To map it, if it is another than the machine has, takes long.
    bool fast = machine().resets_fast() && !image->is_scattered();
    return reset_job(info.Env(), instant, clock, fast, [instant, image, clock](Machine& machine) {
      return machine.reset(*instant, image, clock);
    });
  });
}

Napi::Value MachineObject::recycle(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&] {
    const Prepared& instant = prepared_of(info.Env(), info[0]);
    std::shared_ptr<const Image> image = image_of(info.Env(), info[1]);
    return reset_job(
        info.Env(), instant, ClockPolicy::Keep, false,
        [instant, image](Machine& machine) { return machine.recycle(*instant, image); });
  });
}

Napi::Value MachineObject::renew(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&] {
    const Prepared& instant = prepared_of(info.Env(), info[0]);
    ClockPolicy clock = to_clock_policy(info[1]);
    return reset_job(info.Env(), instant, clock, true,
                     [instant, clock](Machine& machine) { return machine.renew(*instant, clock); });
  });
}

}  // namespace kvmsnap
