// NativeMachine of lib/native/binding.ts.
#pragma once

#include <napi.h>

#include <atomic>
#include <memory>
#include <vector>

#include "addon/js_queue.h"
#include "addon/promise.h"
#include "vmm/machine.h"

namespace kvmsnap {

class MachineObject final : public Napi::ObjectWrap<MachineObject> {
 public:
  static void define(Napi::Env env, Napi::Object exports);
  /// createMachine of the binding.
  static Napi::Value create(const Napi::CallbackInfo& info);

  explicit MachineObject(const Napi::CallbackInfo& info);
  ~MachineObject() override;

  /// Closes the machine when its environment ends: its threads would run on in the process.
  struct Owner final : EnvironmentUser {
    std::shared_ptr<Machine> machine;
    bool ended = false;
    /// An environment that is ending makes no object that could close the machine.
    ~Owner() override {
      if (machine != nullptr) machine->close([] {});
    }
    void environment_ends() override;
  };
  /// What `create` hands over to the constructor.
  struct Parts {
    std::shared_ptr<Owner> owner;
    std::shared_ptr<JsQueue> queue;
    /// Who hears of the machine's events.
    std::shared_ptr<MachineObject*> target;
  };

 private:
  friend class JsMachineEvents;
  friend class JsPageSource;

  static Napi::Object wrap(Napi::Env env, const Parts& parts);

  Napi::Value status(const Napi::CallbackInfo& info);
  Napi::Value resume(const Napi::CallbackInfo& info);
  Napi::Value pause(const Napi::CallbackInfo& info);
  Napi::Value kill(const Napi::CallbackInfo& info);
  Napi::Value close(const Napi::CallbackInfo& info);
  Napi::Value hand_over(const Napi::CallbackInfo& info);
  void ref(const Napi::CallbackInfo& info);
  void unref(const Napi::CallbackInfo& info);

  static std::optional<PagingOptions> paging_of(const Napi::Value& value, const Parts& parts);

  Napi::Value read_memory(const Napi::CallbackInfo& info);
  void write_memory(const Napi::CallbackInfo& info);
  Napi::Value regions(const Napi::CallbackInfo& info);
  Napi::Value add_slot(const Napi::CallbackInfo& info);
  Napi::Value remove_slot(const Napi::CallbackInfo& info);
  Napi::Value set_slot_flags(const Napi::CallbackInfo& info);
  Napi::Value get_dirty_log(const Napi::CallbackInfo& info);
  Napi::Value clear_dirty_log(const Napi::CallbackInfo& info);

  Napi::Value start_tracking(const Napi::CallbackInfo& info);
  Napi::Value harvest_dirty(const Napi::CallbackInfo& info);
  Napi::Value stop_tracking(const Napi::CallbackInfo& info);

  Napi::Value get_vcpu(const Napi::CallbackInfo& info);
  Napi::Value set_vcpu(const Napi::CallbackInfo& info);
  Napi::Value set_irqchip(const Napi::CallbackInfo& info);
  Napi::Value end_if_halted(const Napi::CallbackInfo& info);
  Napi::Value device_accesses(const Napi::CallbackInfo& info);
  Napi::Value get_msrs(const Napi::CallbackInfo& info);
  Napi::Value run_vcpu(const Napi::CallbackInfo& info);
  void answer_vcpu(const Napi::CallbackInfo& info);

  Napi::Value save_state(const Napi::CallbackInfo& info);
  Napi::Value load_state(const Napi::CallbackInfo& info);
  Napi::Value freeze(const Napi::CallbackInfo& info);
  Napi::Value enter_state(const Napi::CallbackInfo& info);
  Napi::Value page_in(const Napi::CallbackInfo& info);
  void answer_pages(const Napi::CallbackInfo& info);
  Napi::Value paging_facts(const Napi::CallbackInfo& info);
  Napi::Value working_set(const Napi::CallbackInfo& info);
  Napi::Value reset(const Napi::CallbackInfo& info);
  Napi::Value recycle(const Napi::CallbackInfo& info);
  Napi::Value renew(const Napi::CallbackInfo& info);

  Napi::Value serial_input(const Napi::CallbackInfo& info);
  void set_output_flow(const Napi::CallbackInfo& info);
  Napi::Value claim_ports(const Napi::CallbackInfo& info);
  Napi::Value claim_mmio(const Napi::CallbackInfo& info);
  void unclaim(const Napi::CallbackInfo& info);
  void complete_exit(const Napi::CallbackInfo& info);
  void set_irq_line(const Napi::CallbackInfo& info);

  /// Throws ERR_CLOSED once `close` or `handOver` was called: the one way to the machine for what
  /// JavaScript asks of it.
  Machine& machine() const;
  std::shared_ptr<Pager> own_pager() const;

  /// Submits a job and gives a promise of what `work` returns. `submit` takes the Crew::Job.
  template <typename ToJs>
  auto delivery(const PendingPromise& promise, ToJs to_js);
  template <typename Submit>
  Napi::Value promised(Napi::Env env, const PendingPromise& promise, Submit submit);
  /// On the machine's thread. `over`: see `over_`.
  template <typename Work>
  static auto attempt_job(Machine& machine, bool over, Work& work);
  template <typename Submit, typename Work, typename ToJs>
  Napi::Value promise_job(Napi::Env env, Submit submit, Work work, ToJs to_js);
  /// For a standing machine. A short one is done at once, on this thread, if it can be.
  template <typename Work, typename ToJs>
  Napi::Value short_job(Napi::Env env, Machine::Access access, Work work, ToJs to_js);
  /// Takes the machine to an instant, by `work`, which gives the number of its new life. A short
  /// one is done at once, if it can be, and gives that number, no promise, or throws.
  template <typename Work>
  Napi::Value reset_job(Napi::Env env, const std::shared_ptr<const MachineConfig>& instant,
                        ClockPolicy clock, bool is_short, Work work);
  template <typename Work>
  auto try_here(Machine::Access access, Work work);
  template <typename Work, typename ToJs>
  Napi::Value standing_job(Napi::Env env, Machine::Access access, Work work, ToJs to_js);

  void begin_call();
  void end_call();
  /// Keeps the event loop and this object alive while the machine runs or a call is under way.
  void update_references();

  /// Calls the listener, if there is one. What it throws is uncaught, as of any event, and keeps no
  /// other event from being told.
  void tell(Napi::Env env, const char* event, const std::vector<napi_value>& arguments);

  // Events, on the environment's thread.
  void on_closed(Napi::Env env);
  Napi::Value on_handed_over(Napi::Env env);
  void on_stopped(Napi::Env env, const Stop& stop);
  void on_output(Napi::Env env, Stream stream);
  void on_pages(Napi::Env env, uint32_t id, const GpaRange& range);
  void on_paging_ended(Napi::Env env);
  void on_claimed_exit(Napi::Env env, unsigned vcpu, uint32_t question, ClaimId claim,
                       const OwnedExit& exit);
  /// What JavaScript listens with; empty when nobody does, or when it has forgotten the object,
  /// which is not running.
  Napi::Object events() const {
    Napi::Object self = Value();
    if (self.IsEmpty()) return self;
    Napi::Value events = self.Get("events");
    return events.IsObject() ? events.As<Napi::Object>() : Napi::Object();
  }

  /// Both null once the machine was handed over.
  std::shared_ptr<Owner> owner_;
  std::shared_ptr<Machine> machine_;
  std::shared_ptr<JsQueue> queue_;
  std::shared_ptr<MachineObject*> target_;
  /// How what this object was asked for finds it again: null when it is gone.
  std::shared_ptr<MachineObject*> self_ = std::make_shared<MachineObject*>(this);
  /// The machine is being handed over: nothing more is done to it for this object.
  std::shared_ptr<std::atomic<bool>> over_ = std::make_shared<std::atomic<bool>>(false);
  unsigned calls_ = 0;
  /// It was started, and JavaScript has not been told of a stop since.
  bool owes_stop_ = false;
  /// Calls of close() that wait for the end.
  std::vector<PendingPromise> closing_;
  bool closed_ = false;
  bool unrefd_ = false;
  bool holds_loop_ = true;
  bool holds_self_ = false;
};

}  // namespace kvmsnap
