// A machine that goes back to an instant, in place: what it has become is dropped, not saved.
#include <algorithm>
#include <utility>

#include "kvm/error.h"
#include "vmm/aside.h"
#include "vmm/kick.h"
#include "vmm/machine.h"
#include "vmm/pit_state.h"

namespace kvmsnap {

namespace {

// An access takes a few exits; a string instruction one for each page it touches.
constexpr unsigned kMostPieces = 1 << 16;

constexpr uint64_t kFastResetMemory = uint64_t{1} << 30;

}  // namespace

// KVM finishes an access at the next KVM_RUN, after any state that is set before. So it is finished
// first, with what an undriven bus gives.
void Machine::abandon_exit(unsigned index) {
  Vcpu& cpu = *vcpus_[index];
  kvm_run& run = cpu.fd().run();
  close_answer(cpu);
  for (unsigned pieces = 0; cpu.incomplete; pieces++) {
    if (pieces == kMostPieces) throw Error("ERR_IOCTL", "KVM_RUN does not finish an access");
    kick_self(run);
    Exit exit = decode_exit(cpu.registers().enter(), run, cpu.fd().run_size());
    note_breach(exit);
    cpu.incomplete = needs_completion(exit);
    if (is_read(exit)) {
      std::span<uint8_t> data = exit_data(exit);
      std::fill(data.begin(), data.end(), 0xFF);
    }
  }
  clear_kick(run);
}

void Machine::require_reachable(const MachineConfig& instant, ClockPolicy clock) const {
  require_same_kind(instant);
  if (clock == ClockPolicy::Host) age_of(*instant.state, {});
}

// A vCPU inside KVM may wait for a page in a way that no kick ends. So before any is waited for its
// memory is given up, and before that the machine is poisoned: none goes on with what is not the
// guest's.
void Machine::submit_reset(const MachineConfig& instant, ClockPolicy clock, Crew::Job job) {
  require_standing(Access::Reset);
  auto paging = pager();
  if (paging == nullptr || !paging->active()) return crew_.submit(std::move(job));
  require_reachable(instant, clock);
  crew_.muster();
  {
    std::lock_guard lock(mutex_);
    if (status_ == Status::Closed) throw Error("ERR_CLOSED", "the machine was closed");
    if (status_ != Status::Poisoned) given_up_ = true;
    status_ = Status::Poisoned;
    crew_.set_running(false);
  }
  paging->abort(Error("ERR_STATE", "the machine was reset"));
  try {
    crew_.submit(std::move(job));
  } catch (...) {
    Error error = current_error();
    tell_given_up(error);
    throw Error(error);
  }
}

void Machine::tell_given_up(const Error& error) noexcept {
  Stop stop = {.reason = "error", .error = error};
  {
    std::lock_guard lock(mutex_);
    if (!std::exchange(given_up_, false)) return;
    stop.life = life_;
  }
  events_->stopped(std::move(stop));
}

void Machine::require_same_kind(const MachineConfig& other) const {
  auto refuse = [](const char* what) {
    throw Error("ERR_STATE", std::string("the snapshot is of a machine with other ") + what +
                                 ": restore or fork it instead");
  };
  if (other.state == nullptr) throw Error("ERR_STATE", "a machine is reset to a state");
  if (other.cpuid != config_.cpuid) refuse("vCPUs or CPUID");
  if (other.irqchip != config_.irqchip || !(other.devices == config_.devices)) refuse("devices");
  std::vector<RegionSpec> regions = memory_.regions();
  bool same = std::equal(regions.begin(), regions.end(), other.regions.begin(), other.regions.end(),
                         [](const RegionSpec& a, const RegionSpec& b) {
                           return a.slot == b.slot && a.gpa == b.gpa && a.size == b.size;
                         });
  if (!same) refuse("memory slots");
}

// The life of before is over: nobody waits for what it was at. Returns the new one's number.
uint32_t Machine::begin_life(const MachineState& state) {
  finish_solo(own(InterruptedExit{}));
  std::lock_guard lock(mutex_);
  if (status_ == Status::Closed) throw Error("ERR_CLOSED", "the machine was closed");
  stand_at(state);
  given_up_ = false;
  crew_.set_running(false);
  killed_ = false;
  return ++life_;
}

template <typename PutBack>
uint32_t Machine::go_back(const MachineConfig& instant, const Image* whole, ClockPolicy clock,
                          const PutBack& put_back) {
  try {
    // Before anything has happened.
    require_reachable(instant, clock);
    if (whole != nullptr) whole->require_whole();
  } catch (...) {
    Error error = current_error();
    tell_given_up(error);
    throw Error(error);
  }
  uint32_t life = begin_life(*instant.state);
  change([&] {
    drop_paging();
    for (unsigned index = 0; index < vcpus_.size(); index++) {
      abandon_exit(index);
      vcpus_[index]->step(false);
    }
    if (config_.irqchip) stop_pit(vm_);
    put_back();
    confinement_.begin(instant.state);
    std::lock_guard lock(devices_->mutex());
    devices_->forget_input();
  });
  tell_stopped(*instant.state, life);
  return life;
}

uint32_t Machine::reset(const MachineConfig& instant, const std::shared_ptr<const Image>& image,
                        ClockPolicy clock) {
  return go_back(instant, image.get(), clock, [&] {
    std::vector<GpaRange> written;
    tracking_.remap(memory_, [&] { written = memory_.reset(image); });
    put_back_state(instant.state, written, clock);
  });
}

void Machine::put_back_state(const std::shared_ptr<const MachineState>& state,
                             std::span<const GpaRange> written, ClockPolicy clock) {
  bool confined = confinement_.held(state, written, memory_);
  reset_before_ = true;
  if (confined) return apply_state(*state, &VcpuRegisters::load_confined, clock);
  auto load = confinement_.knows(*state) ? &VcpuRegisters::load_again : &VcpuRegisters::load;
  if (has_nested_paging()) return apply_state(*state, load, clock);
  Aside dropping([this] { translations_.forget(vm_); });
  apply_state(*state, load, clock);
  dropping.finish();
}

bool Machine::resets_fast() const {
  RamSizes sizes = ram_sizes();
  bool ready = reset_before_ || !config_.irqchip || has_nested_paging();
  return ready && !memory_.freezing() && sizes.below_4g + sizes.above_4g <= kFastResetMemory;
}

uint32_t Machine::recycle(const MachineConfig& instant, const std::shared_ptr<const Image>& image) {
  tracking_.require_none("recycling");
  uint32_t life = go_back(instant, nullptr, ClockPolicy::Keep, [&] {
    memory_.map_anew(image);
    const auto regions = memory_.regions();
    std::vector<GpaRange> all;
    all.reserve(regions.size());
    for (const RegionSpec& region : regions) all.push_back({region.gpa, region.size});
    put_back_state(instant.state, all, ClockPolicy::Keep);
  });
  for (OutputBuffer* output : {&serial_output_, &debug_output_}) {
    output->take();
    output->set_flowing(true);
  }
  for (IoBus* bus : {&ports_, &mmio_}) bus->release_claims();
  return life;
}

uint32_t Machine::renew(const MachineConfig& instant, ClockPolicy clock) {
  return go_back(instant, nullptr, clock,
                 [&] { apply_state(*instant.state, &VcpuRegisters::load_time, clock); });
}

MachineConfig Machine::blueprint() const {
  MachineConfig config = config_;
  config.regions = memory_.regions();
  // Machines that are made from it are not tracked.
  for (RegionSpec& region : config.regions) region.flags &= ~tracking_.flags_set();
  return config;
}

}  // namespace kvmsnap
