#include "vmm/clock_policy.h"

#include <algorithm>
#include <limits>

#include "vmm/saveable_msrs.h"
#include "vmm/struct_bytes.h"

namespace kvmsnap {

namespace {

constexpr uint64_t kNsPerMs = 1'000'000;

uint64_t tsc_cycles(std::chrono::nanoseconds time, uint32_t khz) {
  auto ns = static_cast<unsigned __int128>(time.count());
  return static_cast<uint64_t>(ns * khz / kNsPerMs);
}

void move_tsc(VcpuState& state, std::chrono::nanoseconds time) {
  std::vector<kvm_msr_entry> entries = to_array<kvm_msr_entry>(state[VcpuSection::Msrs], "msrs");
  for (kvm_msr_entry& entry : entries) {
    // Wraps around, as the register does.
    if (entry.index == kMsrTsc) entry.data += tsc_cycles(time, state.tsc_khz);
  }
  state[VcpuSection::Msrs] = to_bytes(entries);
}

}  // namespace

std::chrono::nanoseconds age_of(const MachineState& state, std::chrono::nanoseconds now) {
  const kvm_clock_data& clock = state.vm.clock;
  if ((clock.flags & KVM_CLOCK_REALTIME) == 0) {
    throw Error("ERR_STATE",
                "the snapshot is of a release that did not note the host's time with it: keep the "
                "guest's clock (clock: 'keep')");
  }
  auto current = static_cast<uint64_t>(now.count());
  if (clock.realtime >= current) return std::chrono::nanoseconds(0);
  return std::chrono::nanoseconds(current - clock.realtime);
}

MachineState moved_on(const MachineState& state, std::chrono::nanoseconds time) {
  MachineState moved = state;
  auto passed = static_cast<uint64_t>(time.count());
  uint64_t room = std::numeric_limits<uint64_t>::max() - moved.vm.clock.clock;
  moved.vm.clock.clock += std::min(passed, room);
  moved.vm.clock.realtime += passed;
  for (VcpuState& vcpu : moved.vcpus) move_tsc(vcpu, time);
  return moved;
}

MachineState moved_to_now(const MachineState& state) {
  auto now = std::chrono::system_clock::now().time_since_epoch();
  return moved_on(state, age_of(state, std::chrono::duration_cast<std::chrono::nanoseconds>(now)));
}

}  // namespace kvmsnap
