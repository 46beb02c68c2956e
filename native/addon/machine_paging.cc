// Memory of a NativeMachine that comes on demand, and a source of it that is JavaScript.
#include "addon/background.h"
#include "addon/convert.h"
#include "addon/environment.h"
#include "addon/machine_jobs.h"

namespace kvmsnap {

/// Asks by way of the machine's object; answers come by `answerPages`. Once the environment has
/// ended there are none, and the machine is closed.
class JsPageSource final : public PageSource {
 public:
  JsPageSource(std::shared_ptr<JsQueue> queue, std::shared_ptr<MachineObject*> target)
      : queue_(std::move(queue)), target_(std::move(target)) {}

  bool answers_later() const override { return true; }
  void request(uint32_t id, const GpaRange& range, PageReceiver&) override {
    queue_->post([target = target_, id, range](Napi::Env env) {
      if (*target != nullptr) (*target)->on_pages(env, id, range);
    });
  }

 private:
  std::shared_ptr<JsQueue> queue_;
  std::shared_ptr<MachineObject*> target_;
};

namespace {

std::vector<GpaRange> to_ranges(const Napi::Value& value, const char* name) {
  Napi::Array array = to_array(value, name);
  std::vector<GpaRange> ranges;
  for (uint32_t i = 0; i < array.Length(); i++) {
    Napi::Object range = to_object(array.Get(i), name);
    uint64_t pages = to_uint64(range.Get("count"), "count");
    // Beyond this there is no memory, and the product below would not fit.
    if (pages > kGpaLimit / kPageSize) throw Error("ERR_INVALID_ARGUMENT", "count is too large");
    ranges.push_back({to_address(range.Get("gpa"), "gpa"), pages * kPageSize});
    check_range(ranges.back().gpa, ranges.back().size);
  }
  return ranges;
}

Napi::Value from_ranges(Napi::Env env, const std::vector<GpaRange>& ranges) {
  Napi::Array array = Napi::Array::New(env, ranges.size());
  for (uint32_t i = 0; i < ranges.size(); i++) {
    uint64_t pages = ranges[i].size / kPageSize;
    Napi::Object range = Napi::Object::New(env);
    range["gpa"] = from_address(env, ranges[i].gpa);
    range["count"] = static_cast<double>(pages);
    array[i] = range;
  }
  return array;
}

double microseconds(std::chrono::nanoseconds time) {
  return static_cast<double>(time.count()) / 1000;
}

}  // namespace

std::optional<PagingOptions> MachineObject::paging_of(const Napi::Value& value,
                                                      const Parts& parts) {
  if (value.IsUndefined()) return std::nullopt;
  Napi::Object given = to_object(value, "paging");
  PagingOptions options;
  if (to_bool(given.Get("asks"), "asks")) {
    options.source = std::make_shared<JsPageSource>(parts.queue, parts.target);
  }
  options.fault_bytes = to_uint64(given.Get("faultBytes"), "faultBytes");
  if (!page_aligned(options.fault_bytes) || options.fault_bytes == 0) {
    throw Error("ERR_INVALID_ARGUMENT", "faultBytes must be whole pages");
  }
  options.prefetch = to_ranges(given.Get("prefetch"), "prefetch");
  return options;
}

void MachineObject::on_pages(Napi::Env env, uint32_t id, const GpaRange& range) {
  tell(env, "pages",
       {Napi::Number::New(env, id), from_address(env, range.gpa),
        Napi::Number::New(env, static_cast<double>(range.size))});
}

void MachineObject::on_paging_ended(Napi::Env env) { tell(env, "pagingEnded", {}); }

Napi::Value MachineObject::enter_state(const Napi::CallbackInfo& info) {
  return standing_job(
      info.Env(), Machine::Access::Change, [](Machine& machine) { machine.enter_state(); },
      undefined);
}

Napi::Value MachineObject::page_in(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&] {
    std::vector<GpaRange> ranges;
    if (!info[0].IsUndefined()) ranges = to_ranges(info[0], "ranges");
    bool all = info[0].IsUndefined();
    return start_background(
        info.Env(), "kvmsnap-page-in", info.Env().Undefined(),
        // Not the machine, which a thread must not keep alive: the pager stops when it is gone.
        [pager = machine().pager(), ranges, all](WorkControl& control) {
          if (pager == nullptr) return true;
          if (all) {
            pager->fetch_all(control.cancelled);
          } else {
            pager->fetch(ranges, control.cancelled);
          }
          return true;
        },
        [](Napi::Env env, bool) { return env.Undefined(); });
  });
}

void MachineObject::answer_pages(const Napi::CallbackInfo& info) {
  guard(info.Env(), [&] {
    uint32_t id = to_uint32(info[0], "id");
    if (*over_) return;
    auto pager = machine_->pager();
    if (pager == nullptr) return;
    PageReceiver& receiver = pager->receiver();
    if (info[1].IsTypedArray()) {
      receiver.answer(id, to_bytes_view(info[1], "bytes"));
    } else {
      receiver.refuse(
          id, Error("ERR_PAGE_SOURCE", to_object(info[1], "bytes").Get("message").ToString()));
    }
  });
}

// Of a closed machine, too: what became of it.
std::shared_ptr<Pager> MachineObject::own_pager() const {
  if (*over_) throw Error("ERR_CLOSED", "the machine was closed");
  return machine_->pager();
}

Napi::Value MachineObject::paging_facts(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&]() -> Napi::Value {
    Napi::Env env = info.Env();
    auto pager = own_pager();
    if (pager == nullptr) return env.Undefined();
    PagingFacts facts = pager->facts();
    Napi::Object result = Napi::Object::New(env);
    result["active"] = facts.active;
    result["faults"] = static_cast<double>(facts.faults);
    result["faulted"] = static_cast<double>(facts.faulted);
    result["prefetched"] = static_cast<double>(facts.prefetched);
    result["fetched"] = static_cast<double>(facts.fetched);
    result["left"] = static_cast<double>(facts.left);
    result["p50Us"] = microseconds(facts.p50);
    result["p99Us"] = microseconds(facts.p99);
    return result;
  });
}

Napi::Value MachineObject::working_set(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&]() -> Napi::Value {
    auto pager = own_pager();
    if (pager == nullptr) return info.Env().Undefined();
    return from_ranges(info.Env(), pager->touched());
  });
}

}  // namespace kvmsnap
