// Calls of a NativeMachine that are jobs of its crew and come back as promises.
#pragma once

#include "addon/machine_object.h"

namespace kvmsnap {

inline Napi::Value undefined(Napi::Env env) { return env.Undefined(); }

/// Settles the promise with an outcome, from any thread. To call it does not fail.
template <typename ToJs>
auto MachineObject::delivery(const PendingPromise& promise, ToJs to_js) {
  return [queue = queue_, self = self_, promise, to_js](auto result) {
    std::shared_ptr<decltype(result)> outcome;
    insist([&] { outcome = std::make_shared<decltype(result)>(std::move(result)); });
    queue->post([=](Napi::Env task_env) {
      promise.settle(task_env, *outcome, to_js);
      if (*self != nullptr) (*self)->end_call();
    });
  };
}

template <typename Submit>
Napi::Value MachineObject::promised(Napi::Env env, const PendingPromise& promise, Submit submit) {
  auto submitted = attempt(submit);
  if (std::holds_alternative<Error>(submitted)) {
    // Not thrown: Node never frees a promise that nobody settles.
    promise.settle(env, submitted, undefined);
  } else {
    begin_call();
  }
  return promise.promise();
}

template <typename Work>
auto MachineObject::attempt_job(Machine& machine, bool over, Work& work) {
  return attempt([&] {
    if (over) throw Error("ERR_CLOSED", "the machine was closed");
    return work(machine);
  });
}

template <typename Submit, typename Work, typename ToJs>
Napi::Value MachineObject::promise_job(Napi::Env env, Submit submit, Work work, ToJs to_js) {
  PendingPromise promise(env);
  // The job runs on the machine's own thread, so the machine outlives it.
  auto job = [bare = machine_.get(), over = over_, deliver = delivery(promise, to_js), work](
                 bool cancelled) mutable { deliver(attempt_job(*bare, cancelled || *over, work)); };
  return promised(env, promise, [&] { submit(Crew::Job(job)); });
}

// Null: not done.
template <typename Work>
auto MachineObject::try_here(Machine::Access access, Work work) {
  using Result = decltype(attempt([&] { return work(*machine_); }));
  std::optional<Result> result;
  auto here = attempt([&] {
    return machine().try_standing(access,
                                  [&] { result = attempt([&] { return work(*machine_); }); });
  });
  if (const Error* error = std::get_if<Error>(&here)) result = Result(*error);
  return result;
}

template <typename Work, typename ToJs>
Napi::Value MachineObject::short_job(Napi::Env env, Machine::Access access, Work work, ToJs to_js) {
  return guard(env, [&]() -> Napi::Value {
    auto result = try_here(access, work);
    if (!result) return standing_job(env, access, work, to_js);
    PendingPromise promise(env);
    promise.settle(env, *result, to_js);
    return promise.promise();
  });
}

template <typename Work, typename ToJs>
Napi::Value MachineObject::standing_job(Napi::Env env, Machine::Access access, Work work,
                                        ToJs to_js) {
  return guard(env, [&] {
    return promise_job(
        env, [&](Crew::Job job) { machine().submit_standing(access, std::move(job)); }, work,
        to_js);
  });
}

}  // namespace kvmsnap
