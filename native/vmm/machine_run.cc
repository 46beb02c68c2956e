// What a machine's vCPU threads do: the run loop, and who answers which exit.
#include <algorithm>
#include <cstring>
#include <utility>

#include "kvm/error.h"
#include "vmm/kick.h"
#include "vmm/machine.h"
#include "vmm/reset_request.h"

namespace kvmsnap {

namespace {

template <typename... Ts>
struct Overloaded : Ts... {
  using Ts::operator()...;
};
template <typename... Ts>
Overloaded(Ts...) -> Overloaded<Ts...>;

// Far below what a guest's watchdogs look for, far above a snapshot's pause.
constexpr std::chrono::seconds kNoticeable(1);

constexpr const char* kUnreachable =
    " could not be reached: a file it is mapped from was cut short, or memory is exhausted";

Error guest_crash(const std::string& what) { return Error("ERR_GUEST_CRASH", what); }

std::string describe(const InternalErrorExit& exit) {
  // KVM_INTERNAL_ERROR_EMULATION is what hostile or exotic code runs into.
  std::string what = exit.suberror == KVM_INTERNAL_ERROR_EMULATION
                         ? "KVM could not emulate an instruction of the guest"
                         : "KVM internal error " + std::to_string(exit.suberror);
  for (uint64_t value : exit.data) what.append(" ").append(hex(value));
  return what;
}

}  // namespace

void Machine::run_vcpu(unsigned index) {
  Vcpu& cpu = *vcpus_[index];
  kvm_run& run = cpu.fd().run();
  cpu.in_run = true;
  try {
    if (std::chrono::steady_clock::now() - cpu.stands_since > kNoticeable) excuse_absence(cpu);
    cpu.registers().forget_timer();
    while (crew_.may_run(index)) {
      cpu.incomplete = false;
      close_answer(cpu);
      Exit exit = decode_exit(cpu.registers().enter(), run, cpu.fd().run_size());
      if (std::holds_alternative<InterruptedExit>(exit)) {
        clear_kick(run);
        continue;
      }
      cpu.incomplete = needs_completion(exit);
      handle_exit(index, exit);
    }
    // An exit that was handed out raw stays open until its answer is there.
    if (cpu.open_data.empty()) settle(index);
  } catch (...) {
    fail(current_error());
  }
  cpu.stands_since = std::chrono::steady_clock::now();
  cpu.in_run = false;
}

void Machine::parked(unsigned index) {
  auto deliver = std::exchange(vcpus_[index]->when_parked, nullptr);
  if (deliver) deliver();
}

// The guest's clock goes on while it stands still, and its watchdogs would report a lockup.
// Documentation/virt/kvm/api.rst, KVM_KVMCLOCK_CTRL: after a pause, before vCPUs run again.
void Machine::excuse_absence(const Vcpu& cpu) const { cpu.fd().kvmclock_ctrl(); }

void Machine::settle(unsigned index) {
  Vcpu& cpu = *vcpus_[index];
  kvm_run& run = cpu.fd().run();
  // An access that crosses a page comes in pieces, each an exit of its own.
  while (cpu.incomplete) {
    // Before KVM takes what is there: an answer that comes later is refused.
    close_answer(cpu);
    kick_self(run);
    Exit exit = decode_exit(cpu.registers().enter(), run, cpu.fd().run_size());
    cpu.incomplete = needs_completion(exit);
    if (!std::holds_alternative<InterruptedExit>(exit)) handle_exit(index, exit);
  }
  clear_kick(run);
}

// Written under the lock only, since JavaScript's thread reads it. This thread, alone in writing
// it, may look without.
void Machine::close_answer(Vcpu& cpu) {
  if (cpu.open_data.empty()) return;
  std::lock_guard lock(mutex_);
  cpu.open_data = {};
}

// A handler that throws leaves its access unanswered, and KVM would finish it with anything.
void Machine::settle_all() {
  change([&] {
    for (unsigned index = 0; index < vcpus_.size(); index++) settle(index);
  });
}

void Machine::wake_waiters() {
  serial_output_.wake();
  debug_output_.wake();
  for (auto& cpu : vcpus_) cpu->wake();
}

void Machine::throttle(unsigned index) {
  auto give_up = [&] { return !crew_.may_run(index); };
  bool waited = serial_output_.wait_for_room(give_up);
  waited |= debug_output_.wait_for_room(give_up);
  if (waited) excuse_absence(*vcpus_[index]);
}

bool Machine::drain_full_ring(unsigned index, const Exit& exit) {
  if (rings_ == nullptr || !std::holds_alternative<DirtyRingFullExit>(exit)) return false;
  rings_->drain_full(index);
  return true;
}

// What KVM itself does to a vCPU that shuts down or is stepped no guest can do from ring 3.
void Machine::note_breach(const Exit& exit) {
  bool harmless = std::holds_alternative<IoExit>(exit) || std::holds_alternative<MmioExit>(exit) ||
                  std::holds_alternative<InterruptedExit>(exit) ||
                  std::holds_alternative<DirtyRingFullExit>(exit);
  if (!harmless) confinement_.breach();
}

void Machine::handle_exit(unsigned index, const Exit& exit) {
  note_breach(exit);
  // Even when the exit is handed out: KVM would give no other.
  bool drained = drain_full_ring(index, exit);
  if (deliver_solo(index, exit, false)) return;
  std::visit(
      Overloaded{
          [&](const IoExit&) { dispatch_or_deliver(index, exit); },
          [&](const MmioExit&) { dispatch_or_deliver(index, exit); },
          [&](const HaltExit&) {
            // Only without an in-kernel irqchip: nothing can wake this vCPU again.
            if (!deliver_solo(index, exit, true)) end(Status::Stopped, {.reason = "halt"});
          },
          [&](const DebugExit&) {
            // Nobody steps any more: the guest goes on at full speed.
            if (!deliver_solo(index, exit, true)) vcpus_[index]->step(false);
          },
          [&](const ShutdownExit&) {
            // Before the exit is given, so that who gets it finds the machine stopped.
            bool reset = asked_for_reset(memory_);
            stop_for({.reason = reset ? "reset" : "shutdown"});
            deliver_solo(index, exit, true);
          },
          [&](const SystemEventExit& event) {
            bool reset = event.type == KVM_SYSTEM_EVENT_RESET;
            stop_for({.reason = reset ? "reset" : "shutdown"});
            deliver_solo(index, exit, true);
          },
          [&](const FailEntryExit& failure) {
            fail(guest_crash("the CPU refused to enter the guest, reason " + hex(failure.reason)));
          },
          [&](const InternalErrorExit& error) { fail(guest_crash(describe(error))); },
          [&](const ErrorExit& error) {
            fail(Error("ERR_GUEST_CRASH",
                       error.error_number == EFAULT
                           ? std::string("guest memory") + kUnreachable
                           : std::string("KVM_RUN: ") + std::strerror(error.error_number),
                       "KVM_RUN", error.error_number));
          },
          [&](const InterruptedExit&) {},
          [&](const DirtyRingFullExit&) {
            if (!drained) fail(guest_crash("a dirty ring is full, and none is in use"));
          },
          [&](const UnsupportedExit& unknown) {
            fail(guest_crash("KVM exit reason " + std::to_string(unknown.reason) +
                             " is not supported"));
          },
      },
      exit);
}

void Machine::dispatch_or_deliver(unsigned index, const Exit& exit) {
  // The access that stopped the machine also ends a run by hand: no other exit comes.
  if (!dispatch(index, exit) || status() == Status::Stopped) deliver_solo(index, exit, true);
}

bool Machine::dispatch(unsigned index, const Exit& exit) {
  if (const auto* io = std::get_if<IoExit>(&exit)) {
    return access_bus(index, exit, ports_, io->port, io->size);
  }
  const auto& mmio = std::get<MmioExit>(exit);
  return access_bus(index, exit, mmio_, mmio.gpa, mmio.data.size());
}

bool Machine::access_bus(unsigned index, const Exit& exit, const IoBus& bus, uint64_t address,
                         size_t size) {
  std::span<uint8_t> data = exit_data(exit);
  BusTarget target = bus.find(address);
  if (const auto* device = std::get_if<DeviceTarget>(&target)) {
    {
      std::lock_guard lock(devices_->mutex());
      // A string instruction is `count` accesses to the same port.
      for (size_t at = 0; at < data.size(); at += size) {
        std::span<uint8_t> one = data.subspan(at, size);
        if (is_read(exit)) {
          device->device->read(device->offset, one);
        } else {
          device->device->write(device->offset, one);
        }
      }
      devices_->pump_input();
    }
    device_accesses_.fetch_add(1, std::memory_order_relaxed);
    throttle(index);
    return true;
  }
  if (const auto* claim = std::get_if<ClaimId>(&target)) {
    ask_owner(index, *claim, exit);
    return true;
  }
  if (const auto* mmio = std::get_if<MmioExit>(&exit)) refuse_ram(*mmio);
  if (is_read(exit)) std::memset(data.data(), 0xFF, data.size());
  return false;
}

// KVM's instruction emulator takes RAM that it cannot reach for MMIO, where a CPU's access makes
// KVM_RUN fail with EFAULT. Writes to a read-only slot come here by design.
void Machine::refuse_ram(const MmioExit& mmio) const {
  for (const RegionSpec& spec : memory_.regions()) {
    bool inside = mmio.gpa >= spec.gpa && mmio.gpa < spec.end();
    if (!inside || (mmio.write && (spec.flags & KVM_MEM_READONLY) != 0)) continue;
    throw guest_crash("guest memory at " + hex(mmio.gpa) + kUnreachable);
  }
}

void Machine::ask_owner(unsigned index, ClaimId claim, const Exit& exit) {
  std::optional<Vcpu::Answer> answer = vcpus_[index]->wait_for_answer(
      [&](uint32_t question) { events_->claimed_exit(index, question, claim, own(exit)); },
      [&] { return abandoned(); });
  // Killed or closed while it waited: the guest does not go on.
  if (!answer) return;
  if (const Error* error = std::get_if<Error>(&*answer)) throw *error;
  if (!is_read(exit)) return;
  const auto& bytes = std::get<std::vector<uint8_t>>(*answer);
  std::span<uint8_t> data = exit_data(exit);
  if (bytes.size() != data.size()) {
    throw Error("ERR_HANDLER", "the answer to a guest's read of " + std::to_string(data.size()) +
                                   " bytes has " + std::to_string(bytes.size()));
  }
  std::memcpy(data.data(), bytes.data(), bytes.size());
}

void Machine::complete_exit(unsigned index, uint32_t question,
                            std::variant<std::vector<uint8_t>, Error> data) {
  require_open();
  vcpu(index).answer(question, std::move(data));
}

void Machine::end_if_halted() {
  {
    std::lock_guard lock(mutex_);
    if (status_ != Status::Running || solo_) return;
  }
  settle_all();
  bool halted = std::all_of(vcpus_.begin(), vcpus_.end(),
                            [](const auto& cpu) { return cpu->registers().is_halted_for_good(); });
  if (halted) end(Status::Stopped, {.reason = "halt"});
}

void Machine::stop(StopReason reason, uint32_t code) {
  switch (reason) {
    case StopReason::ExitPort:
      return stop_for({.reason = "exit-port", .code = code});
    case StopReason::Reset:
      return stop_for({.reason = "reset"});
    case StopReason::PowerOff:
      return stop_for({.reason = "power-off"});
  }
}

// A guest whose memory was cut away under it ends in many ways that it did not choose: KVM cannot
// read its page tables or its IDT, which is a triple fault; a kernel finds its data gone, panics
// and resets. No page fails without its file being shorter than it was, which is seen here.
void Machine::stop_for(Stop stop) {
  try {
    memory_.require_whole();
  } catch (...) {
    return fail(current_error());
  }
  end(Status::Stopped, std::move(stop));
}

void Machine::end(Status status, Stop stop) {
  {
    std::lock_guard lock(mutex_);
    // The first reason counts. A kill also poisons a machine that was not running, and what a vCPU
    // runs into once its memory was given up for a reset is that reset's doing.
    bool killed = given_up_ && stop.reason == "killed";
    bool over = status_ == Status::Closed || (status_ == Status::Poisoned && !killed) ||
                (status == Status::Stopped && status_ == Status::Stopped);
    if (over) return;
    given_up_ = false;
    stop.life = life_;
    status_ = status;
    if (status == Status::Stopped) stopped_ = {.reason = stop.reason, .code = stop.code};
    crew_.set_running(false);
  }
  events_->stopped(std::move(stop));
}

void Machine::fail(const Error& error) noexcept {
  end(Status::Poisoned, {.reason = "error", .error = error});
  finish_solo(error);
}

// What is known of the state that a reset could rely on is void, too.
void Machine::poison(const Error& error) noexcept {
  confinement_.breach();
  fail(error);
}

void Machine::run_solo(unsigned index, bool dispatch, bool single_step, SoloDone done) {
  Status before;
  {
    std::lock_guard lock(mutex_);
    require({Status::Created, Status::Paused}, "running one vCPU");
    require_no_solo("running one vCPU");
    // Only now: the vCPUs of a machine that was closed are gone, or going.
    vcpu(index);
    crew_.muster();
    before = std::exchange(status_, Status::Running);
    solo_ = Solo{index, dispatch, std::move(done)};
  }
  // In a job, since the vCPU may be anywhere but in the guest only then.
  auto begin = [this, index, single_step](bool cancelled) {
    if (cancelled) return finish_solo(Error("ERR_CLOSED", "the machine was closed"));
    try {
      if (single_step) confinement_.breach();
      vcpus_[index]->step(single_step);
    } catch (...) {
      return poison(current_error());
    }
    std::lock_guard lock(mutex_);
    if (status_ == Status::Running && solo_) crew_.set_running(true, index);
  };
  try {
    crew_.submit(begin);
  } catch (...) {
    std::lock_guard lock(mutex_);
    solo_.reset();
    if (status_ == Status::Running) status_ = before;
    throw;
  }
}

void Machine::answer_solo(unsigned index, std::vector<uint8_t> data) {
  std::lock_guard lock(mutex_);
  require({Status::Created, Status::Paused}, "answering an exit");
  std::span<uint8_t> open = vcpu(index).open_data;
  if (open.size() != data.size()) {
    throw Error("ERR_INVALID_ARGUMENT", "the last exit of vCPU " + std::to_string(index) +
                                            " waits for " + std::to_string(open.size()) +
                                            " bytes, not " + std::to_string(data.size()));
  }
  std::memcpy(open.data(), data.data(), data.size());
}

bool Machine::deliver_solo(unsigned index, const Exit& exit, bool dispatched) {
  std::function<void()> deliver;
  {
    std::lock_guard lock(mutex_);
    if (!solo_ || solo_->vcpu != index || (solo_->dispatch && !dispatched)) return false;
    // What takes memory comes before the run is over: if there is none, `fail` tells of that.
    deliver = [done = solo_->done, owned = own(exit)] { done(owned); };
    if (is_read(exit)) {
      // What an undriven bus gives, unless answered.
      std::span<uint8_t> data = exit_data(exit);
      std::memset(data.data(), 0xFF, data.size());
      vcpus_[index]->open_data = data;
    }
    solo_.reset();
    if (status_ == Status::Running) status_ = Status::Paused;
    crew_.set_running(false);
  }
  if (vcpus_[index]->in_run) {
    vcpus_[index]->when_parked = std::move(deliver);
  } else {
    deliver();
  }
  return true;
}

void Machine::finish_solo(std::variant<OwnedExit, Error> result) {
  SoloDone done;
  {
    std::lock_guard lock(mutex_);
    if (!solo_) return;
    done = std::move(solo_->done);
    solo_.reset();
  }
  done(std::move(result));
}

}  // namespace kvmsnap
