// What moving a machine's clocks on does to its state. No KVM: the state is made up.
#include "vmm/clock_policy.h"

#include "kvm/error.h"
#include "test/catch.h"
#include "vmm/saveable_msrs.h"
#include "vmm/struct_bytes.h"

namespace kvmsnap {

namespace {

using namespace std::chrono_literals;

MachineState state_of(uint64_t clock, uint64_t realtime, const std::vector<kvm_msr_entry>& msrs) {
  MachineState state;
  state.vm.clock.clock = clock;
  state.vm.clock.realtime = realtime;
  state.vm.clock.flags = KVM_CLOCK_REALTIME;
  VcpuState vcpu;
  vcpu.tsc_khz = 2'000'000;
  vcpu[VcpuSection::Msrs] = to_bytes(msrs);
  state.vcpus = {vcpu, vcpu};
  return state;
}

uint64_t msr(const MachineState& state, size_t vcpu, uint32_t index) {
  for (const auto& entry : to_array<kvm_msr_entry>(state.vcpus[vcpu][VcpuSection::Msrs], "msrs")) {
    if (entry.index == index) return entry.data;
  }
  FAIL("no such MSR");
  return 0;
}

kvm_msr_entry entry(uint32_t index, uint64_t data) { return {.index = index, .data = data}; }

}  // namespace

TEST_CASE("kvmclock and every TSC move on alike, deadlines stay") {
  MachineState state =
      state_of(5'000, 7'000, {entry(kMsrTsc, 1'000), entry(kMsrTscDeadline, 3'000)});
  MachineState moved = moved_on(state, 10s);
  CHECK(moved.vm.clock.clock == 10'000'005'000);
  CHECK(moved.vm.clock.realtime == 10'000'007'000);
  for (size_t vcpu : {0, 1}) {
    CHECK(msr(moved, vcpu, kMsrTsc) == 20'000'001'000);
    CHECK(msr(moved, vcpu, kMsrTscDeadline) == 3'000);
  }
  CHECK(msr(state, 0, kMsrTsc) == 1'000);
}

TEST_CASE("centuries do not overflow, and what is at its end stays there or wraps") {
  MachineState state = state_of(UINT64_MAX - 5, 0, {entry(kMsrTsc, UINT64_MAX)});
  MachineState moved = moved_on(state, std::chrono::nanoseconds::max());
  CHECK(moved.vm.clock.clock == UINT64_MAX);
  // 2 cycles a nanosecond: 2 (2^63 - 1) - 1, modulo 2^64.
  CHECK(msr(moved, 0, kMsrTsc) == UINT64_MAX - 2);
}

TEST_CASE("a TSC of unknown frequency stays") {
  MachineState state = state_of(0, 0, {entry(kMsrTsc, 9)});
  state.vcpus[0].tsc_khz = 0;
  CHECK(msr(moved_on(state, 1s), 0, kMsrTsc) == 9);
}

TEST_CASE("the age of a state is what the host's clock says, and never negative") {
  MachineState state = state_of(0, 7'000, {});
  CHECK(age_of(state, 9us) == 2us);
  CHECK(age_of(state, 7us) == 0ns);
  CHECK(age_of(state, 1us) == 0ns);
  state.vm.clock.realtime = UINT64_MAX;
  CHECK(age_of(state, 9us) == 0ns);
}

TEST_CASE("a state that does not say when it was has no age") {
  MachineState state = state_of(0, 7'000, {});
  state.vm.clock.flags = 0;
  try {
    age_of(state, 9us);
    FAIL("it has one");
  } catch (const Error& error) {
    CHECK(error.code() == "ERR_STATE");
  }
}

}  // namespace kvmsnap
