// A machine's state as a value: saving, loading, freezing; registers and memory slots. All of it in
// jobs, so that no vCPU runs.
#include "vmm/machine_state.h"

#include <algorithm>
#include <array>

#include "kvm/error.h"
#include "vmm/machine.h"
#include "vmm/pit_state.h"
#include "vmm/struct_bytes.h"

namespace kvmsnap {

namespace {

// Mappings are held while there is a tracker, however its start or its end came out.
class Holding {
 public:
  Holding(GuestMemory& memory, const DirtyTracking& tracking)
      : memory_(memory), tracking_(tracking) {}
  Holding(const Holding&) = delete;
  Holding& operator=(const Holding&) = delete;
  ~Holding() { memory_.hold_mappings(tracking_.active()); }

 private:
  GuestMemory& memory_;
  const DirtyTracking& tracking_;
};

}  // namespace

std::vector<uint8_t> Machine::get_section(unsigned index, VcpuSection section) {
  settle_all();
  return vcpu(index).registers().get(section);
}

void Machine::set_section(unsigned index, VcpuSection section, std::span<const uint8_t> bytes) {
  stand_all();
  VcpuRegisters& registers = vcpu(index).registers();
  confinement_.breach();
  if (section == VcpuSection::Msrs) return set_msrs(index, bytes);
  registers.set(section, bytes);
  if (section == VcpuSection::Lapic) registers.forget_timer();
}

// KVM sets them one by one, up to the one that it refuses: those before it are put back.
void Machine::set_msrs(unsigned index, std::span<const uint8_t> bytes) {
  VcpuRegisters& registers = vcpu(index).registers();
  std::vector<uint8_t> before;
  for (const kvm_msr_entry& entry : to_array<kvm_msr_entry>(bytes, "msrs")) {
    try {
      std::vector<uint8_t> one = registers.get_msrs(std::array{entry.index});
      before.insert(before.end(), one.begin(), one.end());
    } catch (const Error& error) {
      // KVM refuses what it cannot read, or has nothing to put back there.
      if (error.code() != "ERR_MSR") throw;
    }
  }
  try {
    registers.set(VcpuSection::Msrs, bytes);
  } catch (...) {
    Error refused = current_error();
    change([&] { registers.set(VcpuSection::Msrs, before); });
    throw Error(refused);
  }
}

void Machine::set_irqchip(std::span<const uint8_t> bytes) {
  if (!config_.irqchip) throw Error("ERR_STATE", "the machine has no irqchip: create it with one");
  auto chip = to_struct<kvm_irqchip>(bytes, "irqchip");
  stand_all();
  confinement_.breach();
  vm_.set_irqchip(chip);
}

std::vector<uint8_t> Machine::get_msrs(unsigned index, std::span<const uint32_t> indices) {
  settle_all();
  return vcpu(index).registers().get_msrs(indices);
}

bool Machine::at_rest(Access access) {
  return std::all_of(vcpus_.begin(), vcpus_.end(), [&](const auto& cpu) {
    if (cpu->incomplete) return false;
    // A reset does not want to know what the timer did.
    return access == Access::Reset || cpu->registers().note_timer_at_sight();
  });
}

void Machine::stand_all() {
  settle_all();
  change([&] {
    for (auto& cpu : vcpus_) cpu->registers().note_timer();
  });
}

void Machine::come_to_stand() {
  try {
    stand_all();
  } catch (...) {
    poison(current_error());
  }
}

MachineState Machine::save_state() {
  stand_all();
  MachineState state;
  // To stand may have been its end: the access that ends it is finished, and nothing after it.
  state.stopped = stopped_state();
  // No input byte and no interrupt from outside may come between the irqchip and the devices.
  std::lock_guard lock(devices_->mutex());
  state.vm = save_vm(vm_, config_.irqchip);
  for (auto& cpu : vcpus_) state.vcpus.push_back(cpu->registers().save());
  state.devices = devices_->save();
  return state;
}

uint32_t Machine::load_state(const MachineState& state) {
  MachineState before = save_state();
  confinement_.breach();
  try {
    if (config_.irqchip) stop_pit(vm_);
    apply_state(state, &VcpuRegisters::load, ClockPolicy::Keep);
  } catch (...) {
    Error refused = current_error();
    change([&] { apply_state(before, &VcpuRegisters::load, ClockPolicy::Keep); });
    throw Error(refused);
  }
  uint32_t life = 0;
  {
    std::lock_guard lock(mutex_);
    if (status_ != Status::Stopped && !state.stopped) return life_;
    if (status_ == Status::Closed || status_ == Status::Poisoned) return life_;
    stand_at(state);
    life = ++life_;
  }
  tell_stopped(state, life);
  return life;
}

void Machine::stand_at(const MachineState& state) {
  status_ = state.stopped ? Status::Stopped : Status::Paused;
  stopped_ = state.stopped;
}

// To whoever waits for the end of the life that was before it: that has come, if another way.
void Machine::tell_stopped(const MachineState& state, uint32_t life) {
  if (!state.stopped) return;
  events_->stopped({.reason = state.stopped->reason, .code = state.stopped->code, .life = life});
}

std::optional<StoppedState> Machine::stopped_state() const {
  std::lock_guard lock(mutex_);
  return stopped_;
}

void Machine::apply_state(const MachineState& state, LoadVcpu load, ClockPolicy clock) {
  if (clock == ClockPolicy::Host) {
    return apply_state(moved_to_now(state), load, ClockPolicy::Keep);
  }
  if (state.vcpus.size() != vcpus_.size()) {
    throw Error("ERR_SNAPSHOT_FORMAT", "the state has " + std::to_string(state.vcpus.size()) +
                                           " vCPUs, the machine " + std::to_string(vcpus_.size()));
  }
  if (state.vm.irqchip.has_value() != config_.irqchip) {
    throw Error("ERR_SNAPSHOT_FORMAT",
                "the state and the machine differ in having an in-kernel irqchip");
  }
  settle_all();
  std::lock_guard lock(devices_->mutex());
  // Devices first: they are all checked before any of them changes.
  devices_->load(state.devices);
  irq_lines_.release();
  load_vm(vm_, state.vm);
  for (size_t i = 0; i < vcpus_.size(); i++) (vcpus_[i]->registers().*load)(state.vcpus[i]);
}

Frozen Machine::freeze(std::chrono::steady_clock::time_point asked, bool pause_after) {
  require_all_pages("freezing memory");
  memory_.require_whole();
  bool was_running = status() == Status::Running;
  Frozen frozen;
  frozen.state = std::make_shared<const MachineState>(save_state());
  // Trackers look at pages and protect them: they and a copy that is still going on would see each
  // other.
  bool late = was_running && !pause_after && !tracking_.active();
  tracking_.remap(memory_, [&] { frozen.memory = memory_.freeze(late); });
  // From here on nothing fails.
  confinement_.begin(frozen.state);
  if (was_running) frozen.pause = std::chrono::steady_clock::now() - asked;
  if (pause_after) {
    finish_solo(own(InterruptedExit{}));
    std::lock_guard lock(mutex_);
    if (status_ == Status::Running) {
      status_ = Status::Paused;
      crew_.set_running(false);
    }
  }
  return frozen;
}

void Machine::add_slot(const RegionSpec& spec) {
  if (spec.slot >= reserved_slot()) {
    throw Error("ERR_INVALID_ARGUMENT",
                "memory slots are numbered 0 to " + std::to_string(reserved_slot() - 1));
  }
  tracking_.require_none("adding a slot");
  slots_.add(spec);
}

void Machine::remove_slot(uint32_t slot) {
  tracking_.require_none("removing a slot");
  require_all_pages("removing a slot");
  slots_.remove(slot);
}

void Machine::set_slot_flags(uint32_t slot, uint32_t flags) {
  tracking_.require_none("changing what a slot logs");
  slots_.set_flags(slot, flags);
}

std::vector<uint64_t> Machine::dirty_log(uint32_t slot) {
  require_log("reading a dirty log");
  return slots_.read_log(slot);
}

void Machine::clear_dirty_log(uint32_t slot, uint64_t first_page, uint32_t pages,
                              std::span<uint64_t> bitmap) {
  require_log("clearing a dirty log");
  slots_.clear_log(slot, first_page, pages, bitmap);
}

void Machine::require_log(const char* call) const {
  tracking_.require_none(call);
  if (rings_ == nullptr) return;
  throw Error("ERR_STATE", std::string(call) +
                               " is not possible: the machine was made with a dirty ring, which "
                               "takes its place; track with `ring`");
}

void Machine::start_tracking(TrackerKind kind) {
  require_all_pages("tracking");
  memory_.settle();
  Holding holding(memory_, tracking_);
  memory_.hold_mappings(true);
  tracking_.start(kind, {memory_, slots_, rings_.get()});
}

DirtyEpoch Machine::harvest_dirty(std::chrono::steady_clock::time_point asked) {
  bool was_running = status() == Status::Running;
  DirtyEpoch epoch = tracking_.harvest(memory_);
  if (was_running) epoch.lost += std::chrono::steady_clock::now() - asked;
  return epoch;
}

void Machine::stop_tracking() {
  Holding holding(memory_, tracking_);
  tracking_.stop();
}

}  // namespace kvmsnap
