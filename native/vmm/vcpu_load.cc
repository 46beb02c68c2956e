// Putting a vCPU into a state: all of it, in the one order that works, or what can have changed.
#include <algorithm>
#include <array>
#include <mutex>
#include <utility>

#include "memory/region_spec.h"
#include "vmm/saveable_msrs.h"
#include "vmm/struct_bytes.h"
#include "vmm/translations.h"
#include "vmm/vcpu_state.h"

namespace kvmsnap {

namespace {

// Without it KVM_KVMCLOCK_CTRL has nothing to tell.
bool has_kvmclock(std::span<const uint8_t> msrs) {
  std::vector<kvm_msr_entry> entries = to_array<kvm_msr_entry>(msrs, "msrs");
  return std::any_of(entries.begin(), entries.end(), [](const kvm_msr_entry& entry) {
    return (entry.index == kMsrKvmSystemTime || entry.index == kMsrKvmSystemTimeNew) &&
           (entry.data & 1) != 0;
  });
}

// Sections that few guests touch. Setting one to what it is costs an ioctl, 5 µs on some hosts.
constexpr std::array kOftenUntouched = {VcpuSection::Xcrs, VcpuSection::Xsave2,
                                        VcpuSection::Debugregs, VcpuSection::VcpuEvents};

}  // namespace

// Read off the first new vCPU with this CPUID, and kept for the next ones.
std::shared_ptr<const VcpuState> VcpuRegisters::state_when_new() {
  static std::mutex mutex;
  static std::shared_ptr<const VcpuState>* latest = new std::shared_ptr<const VcpuState>();
  std::lock_guard lock(mutex);
  bool known = *latest != nullptr && (**latest)[VcpuSection::Cpuid2] == cpuid_;
  if (!known) {
    auto state = std::make_shared<VcpuState>();
    (*state)[VcpuSection::Cpuid2] = cpuid_;
    for (VcpuSection section : kOftenUntouched) (*state)[section] = get(section);
    (*state)[VcpuSection::Msrs] = get(VcpuSection::Msrs);
    state->tsc_khz = fd_.tsc_khz();
    *latest = state;
  }
  return *latest;
}

// kvm_arch_vcpu_create: a vCPU other than the first waits for INIT and SIPI, if there is a LAPIC to
// get them.
kvm_mp_state VcpuRegisters::mp_state_when_new() const {
  bool waits = irqchip_ && index_ != 0;
  return {.mp_state = waits ? __u32{KVM_MP_STATE_UNINITIALIZED} : __u32{KVM_MP_STATE_RUNNABLE}};
}

void VcpuRegisters::load_new(const VcpuState& state) {
  load_over(state, state_when_new().get(), false);
}

// KVM flushes what the CPU has cached of the guest's page tables when CR3 changes, and only then.
// They may be others than those it ran with, though CR3 is the same.
void VcpuRegisters::flush_guest_tlb(std::span<const uint8_t> sregs) const {
  auto other = to_struct<kvm_sregs2>(sregs, "sregs2");
  other.cr3 ^= kPageSize;
  fd_.set_sregs2(other);
}

void VcpuRegisters::load_over(const VcpuState& state, const VcpuState* present, bool deferring) {
  auto load_section = [&](VcpuSection section) {
    bool there = present != nullptr && (*present)[section] == state[section];
    if (!there && !state[section].empty()) set(section, state[section]);
  };
  // CPUID first: what KVM accepts in CR4, XCR0 and MSRs depends on it.
  load_section(VcpuSection::Cpuid2);
  // The TSC's frequency before its value. Without scaling a host may be unable to set it; how far
  // apart two hosts may be was checked when the snapshot was opened.
  if (tsc_khz_ == 0) tsc_khz_ = present != nullptr ? present->tsc_khz : fd_.tsc_khz();
  if (state.tsc_khz != 0 && state.tsc_khz != tsc_khz_) {
    fd_.set_tsc_khz(state.tsc_khz);
    tsc_khz_ = 0;
  }
  // sregs before the LAPIC: they hold the APIC base, which says whether and in which mode it is on.
  if (present == nullptr && has_nested_paging()) flush_guest_tlb(state[VcpuSection::Sregs2]);
  load_section(VcpuSection::Sregs2);
  if (!deferring) load_section(VcpuSection::Regs);
  // XCR0 before the state that it enables.
  load_section(VcpuSection::Xcrs);
  load_section(VcpuSection::Xsave2);
  load_section(VcpuSection::Debugregs);
  // The LAPIC before MSRs: TSC_DEADLINE is ignored unless the LVT timer is in that mode.
  load_section(VcpuSection::Lapic);
  // The TSC is first among the MSRs and TSC_DEADLINE, in terms of that TSC, last. A deadline of 0
  // is a disarmed timer.
  set_msrs(state[VcpuSection::Msrs],
           present != nullptr ? (*present)[VcpuSection::Msrs] : msrs_left_alone(state));
  // After the LAPIC, which clears a pending interrupt when it is set.
  if (!deferring) load_section(VcpuSection::VcpuEvents);
  // Last: it makes a halted or waiting vCPU what it was. Without an in-kernel LAPIC a vCPU is
  // runnable at all times.
  bool waits = state[VcpuSection::MpState] != to_bytes(mp_state_when_new());
  if (waits || (present == nullptr && irqchip_)) load_section(VcpuSection::MpState);
  finish_load(state);
  if (deferring) defer_registers(state);
}

// A vCPU whose page the host does not have at once is halted by KVM until it has (asynchronous page
// faults), told or not. Disabling that, even where it is disabled, makes KVM forget the pages on
// their way (arch/x86/kvm/x86.c, kvm_pv_enable_async_pf), and the vCPU stays halted for ever.
std::vector<uint8_t> VcpuRegisters::msrs_left_alone(const VcpuState& state) {
  std::vector<kvm_msr_entry> entries = to_array<kvm_msr_entry>(state[VcpuSection::Msrs], "msrs");
  bool there = std::any_of(entries.begin(), entries.end(), [](const kvm_msr_entry& entry) {
    return entry.index == kMsrKvmAsyncPfEn;
  });
  if (!irqchip_ || !there) return {};
  return get_msrs(std::array{kMsrKvmAsyncPfEn});
}

void VcpuRegisters::finish_load(const VcpuState& state) {
  if (has_kvmclock(state[VcpuSection::Msrs])) fd_.kvmclock_ctrl();
  // KVM_SET_LAPIC has started the timer from there, with nothing pending.
  if (irqchip_) {
    timer_.note_loaded(TimerView(to_struct<kvm_lapic_state>(state[VcpuSection::Lapic], "lapic")));
  }
}

// Without KVM_RUN having looked at a vCPU that waits for INIT or SIPI, nothing would be set.
void VcpuRegisters::defer_registers(const VcpuState& state) {
  auto mp_state = to_struct<kvm_mp_state>(state[VcpuSection::MpState], "mp_state");
  if (mp_state.mp_state != KVM_MP_STATE_RUNNABLE) {
    set(VcpuSection::Regs, state[VcpuSection::Regs]);
    set(VcpuSection::VcpuEvents, state[VcpuSection::VcpuEvents]);
    return;
  }
  deferred_.defer(to_struct<kvm_regs>(state[VcpuSection::Regs], "regs"),
                  to_struct<kvm_vcpu_events>(state[VcpuSection::VcpuEvents], "vcpu_events"));
}

void VcpuRegisters::load_confined(const VcpuState& state) {
  auto sregs = to_struct<kvm_sregs2>(state[VcpuSection::Sregs2], "sregs2");
  if (deferred_.defer(sregs)) {
    fd_.run().cr8 = sregs.cr8;
  } else {
    set_sregs(sregs);
  }
  fd_.set_xsave(fit_xsave(state[VcpuSection::Xsave2]));
  load_time(state);
}

void VcpuRegisters::load_time(const VcpuState& state) {
  if (irqchip_) {
    fd_.set_lapic(to_struct<kvm_lapic_state>(state[VcpuSection::Lapic], "lapic"));
  }
  std::vector<kvm_msr_entry> entries = to_array<kvm_msr_entry>(state[VcpuSection::Msrs], "msrs");
  std::erase_if(entries, [](const kvm_msr_entry& entry) {
    return entry.index != kMsrTsc && entry.index != kMsrTscDeadline;
  });
  set_msr_entries(std::move(entries));
  finish_load(state);
  // Again after the LAPIC, as above.
  defer_registers(state);
}

}  // namespace kvmsnap
