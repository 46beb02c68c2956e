// A machine's life: building, states, closing.
#include "vmm/machine.h"

#include <algorithm>

#include "kvm/error.h"
#include "vmm/kept_vm.h"
#include "vmm/kick.h"

namespace kvmsnap {

namespace {

// Three pages and one that VMX without unrestricted guest needs, in the hole below 4 GiB where no
// RAM is. The values every VMM uses; the kernel's own default for the second is the same.
constexpr uint64_t kIdentityMapAddress = 0xFFFBC000;
constexpr uint64_t kTssAddress = 0xFFFBD000;

constexpr uint64_t k4GiB = uint64_t{4} << 30;

MachineConfig checked(MachineConfig config) {
  if (config.cpuid.empty()) throw Error("ERR_INVALID_ARGUMENT", "a machine has at least one vCPU");
  return config;
}

}  // namespace

const char* status_name(Status status) {
  switch (status) {
    case Status::Created:
      return "created";
    case Status::Running:
      return "running";
    case Status::Paused:
      return "paused";
    case Status::Stopped:
      return "stopped";
    case Status::Poisoned:
      return "poisoned";
    case Status::Closed:
      return "closed";
  }
  return "closed";
}

Machine::Machine(MachineConfig config, std::unique_ptr<MachineEvents> events)
    : config_(checked(std::move(config))),
      events_(std::move(events)),
      serial_output_([this] { events_->output(Stream::Serial); }),
      debug_output_([this] { events_->output(Stream::Debug); }),
      crew_(*this) {}

std::shared_ptr<Machine> Machine::create(MachineConfig config,
                                         std::unique_ptr<MachineEvents> events,
                                         std::optional<PagingOptions> paging) {
  if (paging && config.image == nullptr) {
    throw Error("ERR_INVALID_ARGUMENT", "memory that comes on demand is an image's");
  }
  std::shared_ptr<Machine> machine(new Machine(std::move(config), std::move(events)));
  // KVM_CREATE_VM fails with EINTR when a signal comes.
  BlockedSignals blocked;
  machine->crew_.commission(machine, [self = machine.get()] { self->destroy(); });
  try {
    machine->build(std::move(paging));
  } catch (...) {
    machine->crew_.dismiss();
    throw;
  }
  return machine;
}

void Machine::build(std::optional<PagingOptions> paging) {
  if (config_.image != nullptr) config_.image->require_whole();
  keep_kvm_on();
  vm_ = Kvm::instance().create_vm();
  vm_.set_identity_map_address(kIdentityMapAddress);
  vm_.set_tss_address(kTssAddress);
  if (config_.manual_dirty_log) slots_.set_manual(true);
  // Before the first vCPU, which gets its ring when it is made.
  if (config_.dirty_ring > 0) rings_ = std::make_unique<DirtyRings>(vm_, config_.dirty_ring);
  // Slots before the irqchip: on a VM that has one, each waits some 10 ms for a grace period.
  for (const RegionSpec& spec : config_.regions) {
    if (paging) {
      memory_.add_empty(spec, config_.image, paging->source == nullptr);
    } else {
      memory_.add(spec, config_.image);
    }
    slots_.map(spec);
  }
  std::shared_ptr<const Image> image = std::move(config_.image);
  // Regions keep the files that they map. Here they would stay open until this object is collected.
  config_.image.reset();
  // The irqchip before the vCPUs: they get their LAPICs from it.
  if (config_.irqchip) {
    vm_.create_irqchip();
    vm_.create_pit2();
  }
  std::vector<kvm_run*> run_pages;
  for (size_t index = 0; index < config_.cpuid.size(); index++) {
    uint32_t number = static_cast<uint32_t>(index);
    vcpus_.push_back(std::make_unique<Vcpu>(vm_.create_vcpu(number), number, config_.irqchip,
                                            config_.cpuid[index]));
    run_pages.push_back(&vcpus_.back()->fd().run());
    if (rings_ != nullptr) rings_->add(vcpus_.back()->fd());
  }
  devices_ = std::make_unique<DeviceSet>(
      config_.devices, vm_, config_.irqchip,
      DeviceSinks{.serial_output = serial_output_, .debug_output = debug_output_, .stop = *this},
      ram_sizes(), ports_);
  if (config_.state && !paging) {
    std::shared_ptr<const MachineState> state = std::move(config_.state);
    apply_state(*state, &VcpuRegisters::load_new, config_.clock);
    confinement_.begin(state);
    std::lock_guard lock(mutex_);
    stand_at(*state);
  } else {
    for (auto& cpu : vcpus_) cpu->registers().note_timer_at_sight();
  }
  crew_.enlist(run_pages);
  // Last: nothing before it touches memory, and from here on a source may fail.
  if (paging) start_paging(*std::move(paging), image);
}

RamSizes Machine::ram_sizes() const {
  RamSizes sizes;
  for (const RegionSpec& spec : config_.regions) {
    (spec.gpa < k4GiB ? sizes.below_4g : sizes.above_4g) += spec.size;
  }
  return sizes;
}

void Machine::destroy() {
  // In the order of the members, reversed, so that nothing refers to what is gone.
  vcpus_.clear();
  if (auto paging = pager()) paging->stop(Error("ERR_CLOSED", "the machine was closed"));
  devices_.reset();
  tracking_.drop();
  rings_.reset();
  vm_ = VmFd();
  memory_.clear();
  confinement_.begin(nullptr);
  std::vector<std::function<void()>> callbacks;
  {
    std::lock_guard lock(mutex_);
    status_ = Status::Closed;
    gone_ = true;
    callbacks.swap(when_closed_);
  }
  for (auto& callback : callbacks) callback();
}

Status Machine::status() const {
  std::lock_guard lock(mutex_);
  return status_;
}

void Machine::require(std::initializer_list<Status> allowed, const char* call) const {
  if (std::find(allowed.begin(), allowed.end(), status_) != allowed.end()) return;
  if (status_ == Status::Closed) throw Error("ERR_CLOSED", "the machine was closed");
  if (status_ == Status::Poisoned) {
    throw Error("ERR_POISONED", std::string(call) +
                                    ": the machine was killed mid-run or failed, its state cannot "
                                    "be trusted: reset or close it");
  }
  std::string message = std::string(call) + " is not allowed while the machine is " +
                        status_name(status_) + ": it must be ";
  const char* separator = "";
  for (Status status : allowed) {
    message += separator + std::string(status_name(status));
    separator = " or ";
  }
  throw Error("ERR_STATE", message);
}

void Machine::require_no_solo(const char* call) const {
  if (!solo_) return;
  throw Error("ERR_STATE", std::string(call) +
                               " is not allowed while the run of one vCPU is being paused: wait "
                               "for its exit");
}

void Machine::require_open() const {
  std::lock_guard lock(mutex_);
  if (status_ == Status::Closed) throw Error("ERR_CLOSED", "the machine was closed");
}

void Machine::resume() {
  std::lock_guard lock(mutex_);
  if (status_ == Status::Running && !solo_) return;
  require({Status::Created, Status::Paused}, "resume");
  require_no_solo("resume");
  crew_.muster();
  status_ = Status::Running;
  crew_.set_running(true);
}

void Machine::pause(Crew::Job done) {
  {
    std::lock_guard lock(mutex_);
    require({Status::Created, Status::Running, Status::Paused, Status::Stopped}, "pause");
    if (status_ == Status::Running) {
      status_ = Status::Paused;
      crew_.set_running(false);
    }
  }
  crew_.submit([this, done = std::move(done)](bool cancelled) {
    if (!cancelled) come_to_stand();
    finish_solo(own(InterruptedExit{}));
    done(cancelled);
  });
}

void Machine::kill(Crew::Job done, const char* reason) {
  {
    std::lock_guard lock(mutex_);
    if (status_ == Status::Closed) throw Error("ERR_CLOSED", "the machine was closed");
  }
  killed_ = true;
  end(Status::Poisoned, {.reason = reason});
  abort_paging(Error("ERR_POISONED", "the machine was killed"));
  wake_waiters();
  finish_solo(Error("ERR_POISONED", "the machine was killed"));
  crew_.submit(std::move(done));
}

void Machine::close(const std::function<void()>& closed) {
  bool gone;
  {
    std::lock_guard lock(mutex_);
    status_ = Status::Closed;
    gone = gone_;
    if (!gone) when_closed_.push_back(closed);
  }
  if (gone) return closed();
  abort_paging(Error("ERR_CLOSED", "the machine was closed"));
  finish_solo(Error("ERR_CLOSED", "the machine was closed"));
  crew_.dismiss();
}

void Machine::submit(Crew::Job job) {
  {
    std::lock_guard lock(mutex_);
    require({Status::Created, Status::Running, Status::Paused, Status::Stopped}, "the call");
  }
  crew_.submit(std::move(job));
}

void Machine::submit_freeze(Crew::Job job, std::function<void()> asked) {
  bool running = false;
  // What poisoned it says more than that it is poisoned.
  if (status() == Status::Poisoned) memory_.require_whole();
  {
    std::lock_guard lock(mutex_);
    require({Status::Created, Status::Running, Status::Paused, Status::Stopped}, "the call");
    running = status_ == Status::Running;
  }
  // With nested paging KVM forgets all at once. Its shadows of the guest's tables it takes apart
  // page by page, some 40 ns each.
  auto paging = pager();
  if (!running || has_nested_paging() || !memory_.is_cold() ||
      (paging != nullptr && paging->active())) {
    asked();
    return crew_.submit(std::move(job));
  }
  crew_.submit(std::move(job), [self = shared_from_this(), asked = std::move(asked)] {
    self->memory_.loosen();
    asked();
  });
}

void Machine::require_standing(Access access) const {
  std::lock_guard lock(mutex_);
  switch (access) {
    case Access::Inspect:
      return require({Status::Created, Status::Paused, Status::Stopped, Status::Poisoned},
                     "the call");
    case Access::Change:
      return require({Status::Created, Status::Paused, Status::Stopped}, "the call");
    case Access::Reset:
      return require(
          {Status::Created, Status::Running, Status::Paused, Status::Stopped, Status::Poisoned},
          "reset");
  }
}

void Machine::submit_standing(Access access, Crew::Job job) {
  require_standing(access);
  crew_.submit(std::move(job));
}

bool Machine::try_standing(Access access, const std::function<void()>& work) {
  require_standing(access);
  // KVM may touch memory, and the caller's thread may be the one that brings it.
  if (auto paging = pager(); paging != nullptr && paging->active()) return false;
  BlockedSignals blocked;
  return crew_.try_job([&] {
    if (!at_rest(access)) return false;
    work();
    return true;
  });
}

std::vector<uint8_t> Machine::take_output(Stream stream) {
  return (stream == Stream::Serial ? serial_output_ : debug_output_).take();
}

void Machine::set_output_flow(Stream stream, bool flowing) {
  (stream == Stream::Serial ? serial_output_ : debug_output_).set_flowing(flowing);
}

size_t Machine::serial_input(std::span<const uint8_t> bytes) {
  require_open();
  std::lock_guard lock(devices_->mutex());
  return devices_->serial_input(bytes);
}

ClaimId Machine::claim_ports(uint16_t base, uint32_t length) {
  require_open();
  if (length > 0x10000u - base) {
    throw Error("ERR_INVALID_ARGUMENT", "ports are numbered 0 to 0xFFFF");
  }
  ports_.claim(base, length, next_claim_);
  return next_claim_++;
}

ClaimId Machine::claim_mmio(uint64_t gpa, uint64_t length) {
  require_open();
  if (gpa >= kGpaLimit || length > kGpaLimit - gpa) {
    throw Error("ERR_INVALID_ARGUMENT", "guest physical addresses are below 2^52");
  }
  for (const RegionSpec& spec : memory_.regions()) {
    if (gpa < spec.end() && spec.gpa < gpa + length) {
      throw Error("ERR_INVALID_ARGUMENT",
                  "the range at " + hex(gpa) + " is RAM: the guest's accesses cause no exit there");
    }
  }
  mmio_.claim(gpa, length, next_claim_);
  return next_claim_++;
}

void Machine::release_claim(ClaimId claim) {
  require_open();
  if (!ports_.release(claim) && !mmio_.release(claim)) {
    throw Error("ERR_INVALID_ARGUMENT", "there is no such claim");
  }
}

void Machine::set_irq_line(uint32_t gsi, bool level) {
  require_open();
  if (!config_.irqchip) throw Error("ERR_STATE", "the machine has no in-kernel irqchip");
  // KVM takes any number and does nothing.
  if (gsi >= KVM_IOAPIC_NUM_PINS) {
    throw Error("ERR_INVALID_ARGUMENT", "the irqchip's inputs are numbered 0 to " +
                                            std::to_string(KVM_IOAPIC_NUM_PINS - 1));
  }
  // A pulse must not fall between the saving of the irqchip and of the devices.
  std::lock_guard lock(devices_->mutex());
  irq_lines_.set(gsi, level);
}

Vcpu& Machine::vcpu(unsigned index) {
  if (index >= vcpus_.size()) {
    throw Error("ERR_INVALID_ARGUMENT", "there is no vCPU " + std::to_string(index));
  }
  return *vcpus_[index];
}

}  // namespace kvmsnap
