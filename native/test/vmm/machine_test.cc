// Machines with a guest on /dev/kvm, driven from an owner's thread as the addon does.
#include "vmm/machine.h"

#include <chrono>
#include <cstring>
#include <future>
#include <random>
#include <thread>

#include "kvm/kvm.h"
#include "test/catch.h"

namespace kvmsnap {

namespace {

using namespace std::chrono_literals;
using Code = std::vector<uint8_t>;

constexpr uint64_t kCodeAt = 0x1000, kCounterAt = 0x2000, kMemory = 1 << 20;

// Real mode. A word at kCounterAt is counted up for ever.
const Code kCount = {0xFF, 0x06, 0x00, 0x20, 0xEB, 0xFA};
// The same, and each time a byte goes to the debug port.
const Code kTalk = {0xFF, 0x06, 0x00, 0x20, 0xB0, 0x41, 0xE6, 0xE9, 0xEB, 0xF6};
// The same, and each time port 0x80 is read.
const Code kAsk = {0xFF, 0x06, 0x00, 0x20, 0xE4, 0x80, 0xEB, 0xF8};
// Writes 7 to the exit port.
const Code kExit = {0xB0, 0x07, 0xE6, 0xF4, 0xEB, 0xFE};

template <typename Condition>
bool eventually(Condition&& condition) {
  auto limit = std::chrono::steady_clock::now() + 30s;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > limit) return false;
    std::this_thread::sleep_for(100us);
  }
  return true;
}

struct Heard {
  std::mutex mutex;
  std::vector<std::string> stops;
  std::atomic<unsigned> outputs = 0;
  std::atomic<unsigned> asked = 0;
};

class Listener final : public MachineEvents {
 public:
  explicit Listener(std::shared_ptr<Heard> heard) : heard_(std::move(heard)) {}
  void stopped(Stop stop) override {
    std::lock_guard lock(heard_->mutex);
    heard_->stops.push_back(stop.reason);
  }
  void output(Stream) override { heard_->outputs++; }
  void claimed_exit(unsigned, uint32_t question, ClaimId, OwnedExit) override {
    heard_->asked = question;
  }

 private:
  std::shared_ptr<Heard> heard_;
};

class Owner {
 public:
  explicit Owner(unsigned vcpus = 1, std::shared_ptr<const Image> image = nullptr,
                 std::optional<MachineState> state = std::nullopt) {
    MachineConfig config;
    config.regions = {{.slot = 0, .gpa = 0, .size = kMemory}};
    config.devices = {.serial = true, .debug_port = true, .exit_port = 0xF4};
    std::vector<kvm_cpuid_entry2> entries = Kvm::instance().supported_cpuid();
    const uint8_t* bytes = reinterpret_cast<const uint8_t*>(entries.data());
    config.cpuid.assign(vcpus, {bytes, bytes + entries.size() * sizeof entries[0]});
    config.image = std::move(image);
    if (state) config.state = std::make_shared<const MachineState>(*std::move(state));
    config_ = config;
    machine_ = Machine::create(std::move(config), std::make_unique<Listener>(heard_));
  }
  ~Owner() { close(); }

  Machine& operator*() { return *machine_; }
  Machine* operator->() { return machine_.get(); }
  Heard& heard() { return *heard_; }

  /// The machine as it is, at an instant.
  MachineConfig instant(const Frozen& frozen) const {
    MachineConfig config = config_;
    config.state = frozen.state;
    return config;
  }

  void close() {
    auto closed = std::make_shared<std::promise<void>>();
    machine_->close([closed] { closed->set_value(); });
    if (closed->get_future().wait_for(30s) != std::future_status::ready) std::abort();
  }

  /// A job's result, or its error. As a value: TSan does not see how exception_ptr counts.
  template <typename Work>
  auto in_job(Work work) {
    using Value = decltype(work(*machine_));
    constexpr bool kNothing = std::is_void_v<Value>;
    using Kept = std::conditional_t<kNothing, std::monostate, Value>;
    using Outcome = std::variant<Kept, Error>;
    auto result = std::make_shared<std::promise<Outcome>>();
    machine_->submit([bare = machine_.get(), work, result](bool cancelled) mutable {
      try {
        if (cancelled) throw Error("ERR_CLOSED", "cancelled");
        if constexpr (kNothing) {
          work(*bare);
          result->set_value(Kept());
        } else {
          result->set_value(work(*bare));
        }
      } catch (const Error& error) {
        result->set_value(Error(std::string(error.code()), std::string(error.what())));
      }
    });
    Outcome outcome = result->get_future().get();
    if (const Error* error = std::get_if<Error>(&outcome))
      throw Error(error->code(), error->what());
    if constexpr (!kNothing) return std::get<Kept>(std::move(outcome));
  }

  void pause() {
    auto done = std::make_shared<std::promise<bool>>();
    machine_->pause([done](bool cancelled) { done->set_value(cancelled); });
    REQUIRE_FALSE(done->get_future().get());
  }

  /// Sets every vCPU at the start of `code`, in real mode.
  Owner& load(const Code& code) {
    machine_->memory().write(kCodeAt, code);
    unsigned count = machine_->vcpu_count();
    in_job([count](Machine& machine) {
      for (unsigned i = 0; i < count; i++) {
        auto sregs = as<kvm_sregs2>(machine.get_section(i, VcpuSection::Sregs2));
        sregs.cs.base = 0;
        sregs.cs.selector = 0;
        machine.set_section(i, VcpuSection::Sregs2, bytes_of(sregs));
        auto regs = as<kvm_regs>(machine.get_section(i, VcpuSection::Regs));
        regs.rip = kCodeAt;
        machine.set_section(i, VcpuSection::Regs, bytes_of(regs));
      }
    });
    return *this;
  }

  uint16_t counter() { return counter_of(machine_->memory()); }

  template <typename Memory>
  static uint16_t counter_of(const Memory& memory) {
    uint16_t value = 0;
    memory.read(kCounterAt, {reinterpret_cast<uint8_t*>(&value), sizeof value});
    return value;
  }

  bool counts() {
    uint16_t before = counter();
    return eventually([&] { return counter() != before; });
  }

  template <typename T>
  static T as(const std::vector<uint8_t>& bytes) {
    T value;
    REQUIRE(bytes.size() == sizeof value);
    std::memcpy(&value, bytes.data(), sizeof value);
    return value;
  }
  template <typename T>
  static std::span<const uint8_t> bytes_of(const T& value) {
    return {reinterpret_cast<const uint8_t*>(&value), sizeof value};
  }

 private:
  std::shared_ptr<Heard> heard_ = std::make_shared<Heard>();
  MachineConfig config_;
  std::shared_ptr<Machine> machine_;
};

std::string code_of(const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& error) {
    return error.code();
  }
  return {};
}

}  // namespace

TEST_CASE(
    "machine: counts, stands still when paused, goes on, and frozen images keep their instant") {
  for (unsigned vcpus : {1u, 2u}) {
    Owner owner(vcpus);
    owner.load(kTalk);
    std::minstd_rand random(vcpus);
    owner->resume();
    REQUIRE(owner.counts());
    for (int round = 0; round < 60; round++) {
      switch (random() % 4) {
        case 0: {
          owner.pause();
          uint16_t still = owner.counter();
          std::this_thread::sleep_for(200us);
          REQUIRE(owner.counter() == still);
          owner->resume();
          break;
        }
        case 1: {
          Frozen frozen = owner.in_job([](Machine& machine) {
            return machine.freeze(std::chrono::steady_clock::now(), false);
          });
          uint16_t instant = Owner::counter_of(*frozen.memory.image);
          REQUIRE(owner.counts());
          REQUIRE(Owner::counter_of(*frozen.memory.image) == instant);
          break;
        }
        case 2:
          owner->serial_input(std::vector<uint8_t>(100, 'x'));
          owner.in_job([](Machine& machine) { machine.get_section(0, VcpuSection::Regs); });
          break;
        default:
          owner->take_output(Stream::Debug);
          owner->set_output_flow(Stream::Debug, random() % 2 == 0);
      }
    }
    owner->set_output_flow(Stream::Debug, true);
    owner->take_output(Stream::Debug);
    REQUIRE(owner.counts());
  }
}

TEST_CASE("machine: a twin goes on where the frozen one was") {
  Owner owner;
  owner.load(kCount);
  owner->resume();
  REQUIRE(owner.counts());
  Frozen frozen = owner.in_job(
      [](Machine& machine) { return machine.freeze(std::chrono::steady_clock::now(), true); });
  REQUIRE(owner->status() == Status::Paused);
  Owner twin(1, frozen.memory.image, *frozen.state);
  REQUIRE(twin->status() == Status::Paused);
  REQUIRE(twin.counter() == owner.counter());
  twin->resume();
  REQUIRE(twin.counts());
  REQUIRE(owner.counter() == Owner::counter_of(*frozen.memory.image));
}

namespace {

/// What a reset by either way puts back, and that the machine then goes on from there.
template <typename Reset>
void require_puts_back(Owner& owner, const Frozen& frozen, Reset reset) {
  auto section = [&](VcpuSection which) {
    return owner.in_job([which](Machine& machine) { return machine.get_section(0, which); });
  };
  constexpr std::array kSections = {VcpuSection::Regs, VcpuSection::Sregs2, VcpuSection::Debugregs};
  auto at_instant = [&](VcpuSection which) { return frozen.state->vcpus[0][which]; };
  uint16_t counter = Owner::counter_of(*frozen.memory.image);
  for (int round = 0; round < 4; round++) {
    owner->resume();
    REQUIRE(owner.counts());
    owner.pause();
    owner.in_job([](Machine& machine) {
      auto regs = Owner::as<kvm_regs>(machine.get_section(0, VcpuSection::Regs));
      regs.r9 = 0x1234;
      machine.set_section(0, VcpuSection::Regs, Owner::bytes_of(regs));
      auto debug = Owner::as<kvm_debugregs>(machine.get_section(0, VcpuSection::Debugregs));
      debug.db[1] = 0x5678;
      machine.set_section(0, VcpuSection::Debugregs, Owner::bytes_of(debug));
    });
    owner->serial_input(std::vector<uint8_t>(100, 'x'));
    owner->memory().write(kMemory - 8, std::vector<uint8_t>{1, 2, 3});
    // Also while it runs.
    if (round % 2 != 0) owner->resume();
    owner.in_job(reset);
    CHECK(owner->status() == Status::Paused);
    CHECK(owner.counter() == counter);
    std::vector<uint8_t> bytes(3, 0xEE);
    owner->memory().read(kMemory - 8, bytes);
    CHECK(bytes == std::vector<uint8_t>(3));
    for (VcpuSection which : kSections) CHECK(section(which) == at_instant(which));
    MachineState now = owner.in_job([](Machine& machine) { return machine.save_state(); });
    CHECK(now.devices == frozen.state->devices);
  }
  owner->resume();
  REQUIRE(owner.counts());
  owner.pause();
}

}  // namespace

TEST_CASE("machine: a reset puts back memory, registers and devices, however the guest ran on") {
  Owner owner;
  owner.load(kTalk);
  owner->resume();
  REQUIRE(owner.counts());
  Frozen frozen = owner.in_job(
      [](Machine& machine) { return machine.freeze(std::chrono::steady_clock::now(), false); });
  MachineConfig instant = owner.instant(frozen);
  auto image = frozen.memory.image;
  require_puts_back(owner, frozen,
                    [=](Machine& machine) { machine.reset(instant, image, ClockPolicy::Keep); });
}

TEST_CASE("machine: a reset to another kind of machine is refused, and changes nothing") {
  Owner owner;
  owner.load(kCount);
  owner->resume();
  REQUIRE(owner.counts());
  Frozen frozen = owner.in_job(
      [](Machine& machine) { return machine.freeze(std::chrono::steady_clock::now(), false); });
  MachineConfig good = owner.instant(frozen);
  std::vector<MachineConfig> others(6, good);
  others[0].state = nullptr;
  others[1].cpuid.push_back(others[1].cpuid[0]);
  others[2].irqchip = !others[2].irqchip;
  others[3].devices.debug_port = !others[3].devices.debug_port;
  others[4].regions[0].size += kPageSize;
  others[5].regions[0].slot++;
  for (size_t which = 0; which < others.size(); which++) {
    INFO(which);
    CHECK(code_of([&] {
            owner.in_job([&](Machine& machine) {
              machine.reset(others[which], frozen.memory.image, ClockPolicy::Keep);
            });
          }) == "ERR_STATE");
    CHECK(owner->status() == Status::Running);
    CHECK(owner.counts());
  }
}

TEST_CASE("machine: output that nobody takes makes the guest wait, within bounds") {
  Owner owner;
  owner.load(kTalk);
  owner->set_output_flow(Stream::Debug, false);
  owner->resume();
  uint16_t last = 0;
  // 256 KiB at some 20 us a byte.
  REQUIRE(eventually([&] {
    uint16_t now = owner.counter();
    std::this_thread::sleep_for(50ms);
    return std::exchange(last, now) == now;
  }));
  owner->set_output_flow(Stream::Debug, true);
  REQUIRE(owner->take_output(Stream::Debug).size() <= (256 << 10) + 4096);
  REQUIRE(owner.counts());
}

TEST_CASE("machine: closed at any moment of its creation") {
  for (unsigned round = 0; round < 60; round++) {
    Owner owner(1 + round % 4);
    std::this_thread::sleep_for(std::chrono::microseconds(round * 40));
    owner.close();
    REQUIRE(owner->status() == Status::Closed);
    REQUIRE(code_of([&] { owner->resume(); }) == "ERR_CLOSED");
    REQUIRE(code_of([&] { owner->run_solo(0, false, false, [](auto) {}); }) == "ERR_CLOSED");
  }
}

TEST_CASE("machine: killed or closed while it runs, while it waits for an answer, in a job") {
  for (unsigned round = 0; round < 60; round++) {
    INFO("round " << round);
    Owner owner(1 + round % 2);
    owner.load(round % 3 == 0 ? kAsk : kTalk);
    if (round % 3 == 0) owner->claim_ports(0x80, 1);
    owner->resume();
    if (round % 3 == 0) REQUIRE(eventually([&] { return owner.heard().asked > 0; }));
    auto told = std::make_shared<std::atomic<unsigned>>(0);
    for (int i = 0; i < 3; i++) owner->submit([told](bool) { ++*told; });
    std::this_thread::sleep_for(std::chrono::microseconds(round * 10));
    if (round % 2 == 0) {
      owner->kill([told](bool) { ++*told; });
      REQUIRE(owner->status() == Status::Poisoned);
      REQUIRE(eventually([&] { return *told == 4; }));
      REQUIRE(code_of([&] { owner->resume(); }) == "ERR_POISONED");
    }
    owner.close();
    REQUIRE(*told >= 3);
  }
}

TEST_CASE("machine: answers from JavaScript's side, given at any time") {
  Owner owner;
  owner.load(kAsk);
  owner->claim_ports(0x80, 1);
  owner->resume();
  unsigned answered = 0;
  for (int round = 0; round < 100; round++) {
    REQUIRE(eventually([&] { return owner.heard().asked > answered; }));
    if (round % 10 == 9) {
      auto paused = std::make_shared<std::promise<bool>>();
      owner->pause([paused](bool cancelled) { paused->set_value(cancelled); });
      owner->complete_exit(0, ++answered, std::vector<uint8_t>{1});
      REQUIRE_FALSE(paused->get_future().get());
      owner->resume();
      continue;
    }
    // Answers to other questions are not taken.
    owner->complete_exit(0, answered, std::vector<uint8_t>{7, 7});
    owner->complete_exit(0, ++answered, std::vector<uint8_t>{1});
  }
  REQUIRE(eventually([&] { return owner.heard().asked > answered; }));
  owner->complete_exit(0, ++answered, Error("ERR_HANDLER", "on purpose"));
  REQUIRE(eventually([&] { return owner->status() == Status::Poisoned; }));
  owner->complete_exit(0, answered, std::vector<uint8_t>{1});
}

TEST_CASE("machine: a run by hand gives its exit once, and nothing runs over it") {
  Owner owner;
  owner.load(kAsk);
  for (int round = 0; round < 40; round++) {
    INFO("round " << round);
    auto exit = std::make_shared<std::promise<bool>>();
    owner->run_solo(0, false, false, [exit](std::variant<OwnedExit, Error> result) {
      auto* owned = std::get_if<OwnedExit>(&result);
      exit->set_value(owned != nullptr && std::holds_alternative<IoExit>(owned->exit));
    });
    if (round % 2 == 0) {
      REQUIRE(exit->get_future().get());
      owner->answer_solo(0, {5});
      continue;
    }
    // Paused without waiting: what comes next is refused until the exit, of either kind, is there.
    auto paused = std::make_shared<std::promise<void>>();
    owner->pause([paused](bool) { paused->set_value(); });
    std::string resumed = code_of([&] { owner->resume(); });
    if (resumed.empty()) {
      owner.pause();
    } else {
      REQUIRE(resumed == "ERR_STATE");
    }
    paused->get_future().get();
    exit->get_future().get();
    REQUIRE(owner->status() == Status::Paused);
  }
  owner->memory().write(kCodeAt, kExit);
  owner.load(kExit);
  auto last = std::make_shared<std::promise<bool>>();
  owner->run_solo(0, true, false, [last](const std::variant<OwnedExit, Error>& result) {
    last->set_value(std::holds_alternative<OwnedExit>(result));
  });
  auto future = last->get_future();
  REQUIRE(future.wait_for(20s) == std::future_status::ready);
  REQUIRE(owner->status() == Status::Stopped);
}

TEST_CASE("machine: a state that KVM refuses half-way leaves the one that was there") {
  Owner owner;
  owner.load(kCount);
  MachineState before = owner.in_job([](Machine& machine) { return machine.save_state(); });
  MachineState bad = before;
  auto regs = Owner::as<kvm_regs>(bad.vcpus[0][VcpuSection::Regs]);
  regs.rip = 0x3000;
  auto bytes = Owner::bytes_of(regs);
  bad.vcpus[0][VcpuSection::Regs].assign(bytes.begin(), bytes.end());
  // After the registers: an MSR that there is not.
  kvm_msr_entry unknown = {.index = 0x12345678, .data = 1};
  auto msr = Owner::bytes_of(unknown);
  bad.vcpus[0][VcpuSection::Msrs].assign(msr.begin(), msr.end());
  REQUIRE(code_of([&] { owner.in_job([&](Machine& machine) { machine.load_state(bad); }); }) ==
          "ERR_MSR");
  MachineState after = owner.in_job([](Machine& machine) { return machine.save_state(); });
  REQUIRE(after.vcpus[0][VcpuSection::Regs] == before.vcpus[0][VcpuSection::Regs]);
  REQUIRE(after.vcpus[0][VcpuSection::Sregs2] == before.vcpus[0][VcpuSection::Sregs2]);
  owner->resume();
  REQUIRE(owner.counts());
}

}  // namespace kvmsnap
