// The life of a NativeMachine: creation, states, references, events.
#include "addon/machine_object.h"

#include <utility>

#include "addon/convert.h"
#include "addon/environment.h"
#include "addon/image_object.h"
#include "addon/machine_jobs.h"
#include "addon/prepared_machine.h"
#include "addon/state_convert.h"
#include "addon/tagged.h"

namespace kvmsnap {

namespace {

// Random, as napi_type_tag_object wants it.
constexpr napi_type_tag kMachineTag = {0x51f9d02be7344a0e, 0x9c0b6a43d81f27e5};

// See Handover.
thread_local const MachineObject::Parts* parts_of_new = nullptr;

}  // namespace

/// Events go to the object through the queue. The queue drops them when the environment has ended.
class JsMachineEvents final : public MachineEvents {
 public:
  using Target = std::shared_ptr<MachineObject*>;

  JsMachineEvents(std::shared_ptr<JsQueue> queue, Target target)
      : queue_(std::move(queue)), target_(std::move(target)) {}

  void stopped(Stop stop) override {
    queue_->post([target = target_, stop = std::move(stop)](Napi::Env env) {
      if (*target != nullptr) (*target)->on_stopped(env, stop);
    });
  }
  void output(Stream stream) override {
    queue_->post([target = target_, stream](Napi::Env env) {
      if (*target != nullptr) (*target)->on_output(env, stream);
    });
  }
  void claimed_exit(unsigned vcpu, uint32_t question, ClaimId claim, OwnedExit exit) override {
    queue_->post([target = target_, vcpu, question, claim, exit = std::move(exit)](Napi::Env env) {
      if (*target != nullptr) (*target)->on_claimed_exit(env, vcpu, question, claim, exit);
    });
  }
  void paging_ended() override {
    queue_->post([target = target_](Napi::Env env) {
      if (*target != nullptr) (*target)->on_paging_ended(env);
    });
  }

 private:
  std::shared_ptr<JsQueue> queue_;
  Target target_;
};

void MachineObject::Owner::environment_ends() {
  ended = true;
  machine->close([] {});
}

void MachineObject::define(Napi::Env env, Napi::Object) {
  Napi::Function constructor =
      DefineClass(env, "NativeMachine",
                  {tagged_accessor<MachineObject, &MachineObject::status, &kMachineTag>("status"),
                   InstanceMethod<&MachineObject::resume>("resume"),
                   InstanceMethod<&MachineObject::pause>("pause"),
                   InstanceMethod<&MachineObject::kill>("kill"),
                   InstanceMethod<&MachineObject::close>("close"),
                   InstanceMethod<&MachineObject::hand_over>("handOver"),
                   InstanceMethod<&MachineObject::ref>("ref"),
                   InstanceMethod<&MachineObject::unref>("unref"),
                   InstanceMethod<&MachineObject::read_memory>("readMemory"),
                   InstanceMethod<&MachineObject::write_memory>("writeMemory"),
                   InstanceMethod<&MachineObject::regions>("regions"),
                   InstanceMethod<&MachineObject::add_slot>("addSlot"),
                   InstanceMethod<&MachineObject::remove_slot>("removeSlot"),
                   InstanceMethod<&MachineObject::set_slot_flags>("setSlotFlags"),
                   InstanceMethod<&MachineObject::get_dirty_log>("getDirtyLog"),
                   InstanceMethod<&MachineObject::clear_dirty_log>("clearDirtyLog"),
                   InstanceMethod<&MachineObject::start_tracking>("startTracking"),
                   InstanceMethod<&MachineObject::harvest_dirty>("harvestDirty"),
                   InstanceMethod<&MachineObject::stop_tracking>("stopTracking"),
                   InstanceMethod<&MachineObject::get_vcpu>("getVcpu"),
                   InstanceMethod<&MachineObject::set_vcpu>("setVcpu"),
                   InstanceMethod<&MachineObject::set_irqchip>("setIrqchip"),
                   InstanceMethod<&MachineObject::end_if_halted>("endIfHalted"),
                   InstanceMethod<&MachineObject::device_accesses>("deviceAccesses"),
                   InstanceMethod<&MachineObject::get_msrs>("getMsrs"),
                   InstanceMethod<&MachineObject::run_vcpu>("runVcpu"),
                   InstanceMethod<&MachineObject::answer_vcpu>("answerVcpu"),
                   InstanceMethod<&MachineObject::save_state>("saveState"),
                   InstanceMethod<&MachineObject::load_state>("loadState"),
                   InstanceMethod<&MachineObject::freeze>("freeze"),
                   InstanceMethod<&MachineObject::enter_state>("enterState"),
                   InstanceMethod<&MachineObject::page_in>("pageIn"),
                   InstanceMethod<&MachineObject::answer_pages>("answerPages"),
                   InstanceMethod<&MachineObject::paging_facts>("pagingFacts"),
                   InstanceMethod<&MachineObject::working_set>("workingSet"),
                   InstanceMethod<&MachineObject::reset>("reset"),
                   InstanceMethod<&MachineObject::recycle>("recycle"),
                   InstanceMethod<&MachineObject::renew>("renew"),
                   InstanceMethod<&MachineObject::serial_input>("serialInput"),
                   InstanceMethod<&MachineObject::set_output_flow>("setOutputFlow"),
                   InstanceMethod<&MachineObject::claim_ports>("claimPorts"),
                   InstanceMethod<&MachineObject::claim_mmio>("claimMmio"),
                   InstanceMethod<&MachineObject::unclaim>("unclaim"),
                   InstanceMethod<&MachineObject::complete_exit>("completeExit"),
                   InstanceMethod<&MachineObject::set_irq_line>("setIrqLine")});
  Environment::of(env).machine_class = Napi::Persistent(constructor);
}

// A class's constructor takes JavaScript values only: what it is made of goes by parts_of_new.
Napi::Object MachineObject::wrap(Napi::Env env, const Parts& parts) {
  Handover handover(parts_of_new, parts);
  Napi::Object object = Environment::of(env).machine_class.New({});
  Unwrap(object)->update_references();
  return object;
}

Napi::Value MachineObject::create(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  return guard(env, [&]() -> Napi::Value {
    MachineConfig config = config_of(env, info[0]);
    if (!info[2].IsUndefined()) config.image = image_of(env, info[2]);
    config.clock = to_clock_policy(info[3]);
    Napi::Object events = to_object(info[1], "events");
    Parts parts = {.owner = std::make_shared<Owner>(),
                   .queue = JsQueue::create(env, "kvmsnap-machine"),
                   .target = std::make_shared<MachineObject*>(nullptr)};
    PendingPromise promise(env);
    auto outcome = attempt([&] {
      std::optional<PagingOptions> paging = paging_of(info[4], parts);
      parts.owner->machine = Machine::create(
          std::move(config), std::make_unique<JsMachineEvents>(parts.queue, parts.target),
          std::move(paging));
      Environment::of(env).add(parts.owner);
    });
    if (std::holds_alternative<Error>(outcome)) parts.queue->close();
    promise.settle(env, outcome, [&](Napi::Env) -> Napi::Value {
      Napi::Object object = wrap(env, parts);
      object.Set("events", events);
      return object;
    });
    return promise.promise();
  });
}

MachineObject::MachineObject(const Napi::CallbackInfo& info)
    : Napi::ObjectWrap<MachineObject>(info) {
  guard(info.Env(), [&] {
    const Parts* parts = parts_of_new;
    if (parts == nullptr) {
      throw Error("ERR_INVALID_ARGUMENT", "machines come from createMachine only");
    }
    owner_ = parts->owner;
    machine_ = owner_->machine;
    queue_ = parts->queue;
    info.This().As<Napi::Object>().TypeTag(&kMachineTag);
    target_ = parts->target;
    *target_ = this;
  });
}

// A machine that JavaScript forgot, or an environment's end: freed in the background.
MachineObject::~MachineObject() {
  *self_ = nullptr;
  if (owner_ == nullptr) return;
  *target_ = nullptr;
  machine_->close([] {});
  if (owner_->ended) return;
  Environment::of(Env()).remove(owner_.get());
  queue_->close_when_idle();
}

Machine& MachineObject::machine() const {
  if (*over_ || machine_->status() == Status::Closed) {
    throw Error("ERR_CLOSED", "the machine was closed");
  }
  return *machine_;
}

void MachineObject::begin_call() {
  calls_++;
  update_references();
}

void MachineObject::end_call() {
  calls_--;
  update_references();
}

void MachineObject::update_references() {
  Status status = machine_ == nullptr ? Status::Closed : machine_->status();
  // A machine that stops does so before JavaScript hears of it.
  bool running = status == Status::Running ||
                 (owes_stop_ && (status == Status::Stopped || status == Status::Poisoned));
  bool hold_loop = calls_ > 0 || (running && !unrefd_);
  if (hold_loop != holds_loop_) hold_loop ? queue_->ref() : queue_->unref();
  holds_loop_ = hold_loop;
  bool hold_self = calls_ > 0 || running;
  if (hold_self == holds_self_) return;
  holds_self_ = hold_self;
  if (hold_self) {
    Ref();
  } else {
    Unref();
  }
}

Napi::Value MachineObject::status(const Napi::CallbackInfo& info) {
  Status status = *over_ ? Status::Closed : machine_->status();
  return Napi::String::New(info.Env(), status_name(status));
}

Napi::Value MachineObject::resume(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  return guard(env, [&]() -> Napi::Value {
    PendingPromise promise(env);
    auto outcome = attempt([&] {
      machine().resume();
      owes_stop_ = true;
    });
    update_references();
    promise.settle(env, outcome, undefined);
    return promise.promise();
  });
}

Napi::Value MachineObject::device_accesses(const Napi::CallbackInfo& info) {
  return guard(info.Env(),
               [&] { return Napi::Number::New(info.Env(), machine().device_accesses()); });
}

Napi::Value MachineObject::pause(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&] {
    return promise_job(
        info.Env(), [&](Crew::Job job) { machine().pause(std::move(job)); }, [](Machine&) {},
        undefined);
  });
}

Napi::Value MachineObject::kill(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&] {
    return promise_job(
        info.Env(), [&](Crew::Job job) { machine().kill(std::move(job)); }, [](Machine&) {},
        undefined);
  });
}

Napi::Value MachineObject::close(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  return guard(env, [&]() -> Napi::Value {
    PendingPromise promise(env);
    if (closed_ || machine_ == nullptr) {
      promise.settle(env, Outcome<Nothing>(Nothing{}), undefined);
      return promise.promise();
    }
    closing_.push_back(promise);
    if (closing_.size() > 1) return promise.promise();
    begin_call();
    machine_->close([queue = queue_, self = self_] {
      queue->post([=](Napi::Env task_env) {
        if (*self != nullptr) (*self)->on_closed(task_env);
      });
    });
    return promise.promise();
  });
}

void MachineObject::on_closed(Napi::Env env) {
  closed_ = true;
  for (const PendingPromise& promise : std::exchange(closing_, {})) {
    promise.settle(env, Outcome<Nothing>(Nothing{}), undefined);
  }
  end_call();
  // Let go of the event loop's handle now, not at the next GC; but what was asked for before, and
  // is still under way on a thread of its own, comes to an end that its caller hears of.
  queue_->close_when_idle();
}

// Jobs that wait find `over_` set. So when this one is done nothing that this object was asked for
// will be done to the machine, which stands.
Napi::Value MachineObject::hand_over(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  return guard(env, [&] {
    PendingPromise promise(env);
    auto job = [queue = queue_, self = self_, over = over_, promise](bool cancelled) {
      queue->post([=](Napi::Env task_env) {
        Outcome<Nothing> outcome;
        if (cancelled) outcome = Error("ERR_CLOSED", "the machine was closed");
        if (*self == nullptr) return;
        promise.settle(task_env, outcome,
                       [&](Napi::Env) { return (*self)->on_handed_over(task_env); });
        (*self)->end_call();
      });
    };
    return promised(env, promise, [&] {
      Machine& machine = this->machine();
      *over_ = true;
      try {
        machine.kill(job, "closed");
      } catch (...) {
        *over_ = false;
        throw;
      }
    });
  });
}

Napi::Value MachineObject::on_handed_over(Napi::Env env) {
  // The heir holds the queue like any new object, until it knows better.
  queue_->ref();
  Napi::Object heir = wrap(env, {.owner = owner_, .queue = queue_, .target = target_});
  machine_ = nullptr;
  owner_ = nullptr;
  owes_stop_ = false;
  return heir;
}

void MachineObject::ref(const Napi::CallbackInfo&) {
  unrefd_ = false;
  update_references();
}

void MachineObject::unref(const Napi::CallbackInfo&) {
  unrefd_ = true;
  update_references();
}

void MachineObject::tell(Napi::Env env, const char* event,
                         const std::vector<napi_value>& arguments) {
  Napi::Object handlers = events();
  if (handlers.IsEmpty()) return;
  // Who does not ask for pages need not listen to what becomes of them.
  Napi::Value handler = handlers.Get(event);
  if (!handler.IsFunction()) return;
  try {
    handler.As<Napi::Function>().Call(handlers, arguments);
  } catch (const Napi::Error& error) {
    napi_fatal_exception(env, error.Value());
  }
}

void MachineObject::on_stopped(Napi::Env env, const Stop& stop) {
  // What the guest wrote before it stopped comes before the news that it did.
  on_output(env, Stream::Serial);
  on_output(env, Stream::Debug);
  owes_stop_ = false;
  update_references();
  tell(env, "stopped", {from_stop(env, stop), Napi::Number::New(env, stop.life)});
}

}  // namespace kvmsnap
