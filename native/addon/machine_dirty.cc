// Dirty tracking of a NativeMachine.
#include <chrono>

#include "addon/convert.h"
#include "addon/environment.h"
#include "addon/machine_jobs.h"

namespace kvmsnap {

namespace {

double microseconds(std::chrono::nanoseconds time) {
  return static_cast<double>(time.count()) / 1000;
}

Napi::Value from_epoch(Napi::Env env, const DirtyEpoch& epoch) {
  Napi::Array slots = Napi::Array::New(env, epoch.slots.size());
  for (uint32_t i = 0; i < epoch.slots.size(); i++) {
    const DirtySlot& dirty = epoch.slots[i];
    Napi::Object slot = Napi::Object::New(env);
    slot["slot"] = dirty.slot;
    slot["gpa"] = from_address(env, dirty.gpa);
    slot["pages"] = static_cast<double>(dirty.pages);
    slot["count"] = static_cast<double>(dirty.count());
    slot["bitmap"] = from_bytes(env, {reinterpret_cast<const uint8_t*>(dirty.bitmap.data()),
                                      dirty.bitmap.size() * sizeof(uint64_t)});
    slots[i] = slot;
  }
  Napi::Object result = Napi::Object::New(env);
  result["slots"] = slots;
  result["harvestUs"] = microseconds(epoch.harvest);
  result["lostUs"] = microseconds(epoch.lost);
  return result;
}

}  // namespace

Napi::Value MachineObject::start_tracking(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&] {
    std::string name = info[0].ToString();
    std::optional<TrackerKind> kind = tracker_by_name(name);
    if (!kind) throw Error("ERR_INVALID_ARGUMENT", "there is no tracker " + name);
    return promise_job(
        info.Env(), [&](Crew::Job job) { machine().submit(std::move(job)); },
        [kind = *kind](Machine& machine) { machine.start_tracking(kind); }, undefined);
  });
}

Napi::Value MachineObject::harvest_dirty(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&] {
    auto asked = std::chrono::steady_clock::now();
    return promise_job(
        info.Env(), [&](Crew::Job job) { machine().submit(std::move(job)); },
        [asked](Machine& machine) { return machine.harvest_dirty(asked); }, from_epoch);
  });
}

Napi::Value MachineObject::stop_tracking(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&] {
    return promise_job(
        info.Env(),
        [&](Crew::Job job) {
          // A machine that was killed can be reset, and tracked again.
          machine().submit_standing(Machine::Access::Reset, std::move(job));
        },
        [](Machine& machine) { machine.stop_tracking(); }, undefined);
  });
}

}  // namespace kvmsnap
