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

// Releases that do not say had what KVM gives a vCPU when it is not asked, 32 banks.
uint64_t mcg_cap_of(const std::vector<kvm_msr_entry>& msrs) {
  auto entry = std::find_if(msrs.begin(), msrs.end(),
                            [](const kvm_msr_entry& one) { return one.index == kMsrMcgCap; });
  return entry == msrs.end() ? 32 : entry->data;
}

}  // namespace

// Read off the first new vCPU of its kind, and kept for the next ones.
std::shared_ptr<const VcpuState> VcpuRegisters::state_when_new() {
  struct Latest {
    std::shared_ptr<const VcpuKind> kind;
    std::shared_ptr<const VcpuState> state;
  };
  static std::mutex mutex;
  static auto* latest = new Latest();
  std::lock_guard lock(mutex);
  if (latest->kind != kind_) {
    auto state = std::make_shared<VcpuState>();
    for (VcpuSection section : kOftenUntouched) (*state)[section] = get(section);
    std::vector<kvm_msr_entry> msrs = kind_->new_msrs();
    // The one that is a number of the vCPU.
    std::erase_if(msrs, [](const kvm_msr_entry& entry) { return entry.index == kMsrHvVpIndex; });
    (*state)[VcpuSection::Msrs] = to_bytes(msrs);
    state->tsc_khz = fd_.tsc_khz();
    *latest = {.kind = kind_, .state = state};
  }
  return latest->state;
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
  std::vector<kvm_msr_entry> msrs = to_array<kvm_msr_entry>(state[VcpuSection::Msrs], "msrs");
  // How many machine-check banks there are before what they hold.
  set_mcg_cap(mcg_cap_of(msrs));
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
  if (present != nullptr) {
    set_msrs(std::move(msrs), to_array<kvm_msr_entry>((*present)[VcpuSection::Msrs], "msrs"));
  } else {
    complete(msrs);
    set_msrs(msrs, msrs_left_alone(msrs));
  }
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
//
// VM_CR is looked at in the same call: once a guest has set its bit SVMDIS, KVM keeps that and the
// lock beside it, whatever it is set to (arch/x86/kvm/svm/svm.c, svm_set_vm_cr).
std::vector<kvm_msr_entry> VcpuRegisters::msrs_left_alone(
    const std::vector<kvm_msr_entry>& wanted) {
  constexpr uint64_t kLockAndDisable = 3 << 3;
  constexpr uint64_t kDisable = 1 << 4;
  std::vector<kvm_msr_entry> present;
  for (const kvm_msr_entry& entry : wanted) {
    bool looks = (entry.index == kMsrKvmAsyncPfEn && irqchip_) ||
                 (entry.index == kMsrVmCr && kind_->has_vm_cr());
    if (looks) present.push_back({.index = entry.index, .reserved = 0, .data = 0});
  }
  if (present.empty()) return present;
  fd_.msrs(present);
  for (const kvm_msr_entry& now : present) {
    if (now.index != kMsrVmCr || (now.data & kDisable) == 0) continue;
    for (const kvm_msr_entry& entry : wanted) {
      if (entry.index != kMsrVmCr || ((entry.data ^ now.data) & kLockAndDisable) == 0) continue;
      throw Error("ERR_MSR",
                  "the guest has switched SVM off until power-off (MSR " + hex(kMsrVmCr) +
                      "), and KVM does not take that back: restore or fork the snapshot instead");
    }
  }
  return present;
}

void VcpuRegisters::complete(std::vector<kvm_msr_entry>& msrs) const {
  const std::vector<kvm_msr_entry>& all = kind_->new_msrs();
  size_t given = msrs.size();
  size_t at = 0;
  for (const kvm_msr_entry& entry : all) {
    if (entry.index == kMsrTsc || entry.index == kMsrTscDeadline) continue;
    size_t looked = 0;
    // As in set_msrs.
    for (; looked < given && msrs[at % given].index != entry.index; looked++) at++;
    if (looked == given) msrs.push_back(entry);
  }
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
