#include "vmm/vcpu_state.h"

#include <algorithm>
#include <cstring>
#include <mutex>

#include "kvm/error.h"
#include "kvm/kvm.h"
#include "memory/region_spec.h"
#include "vmm/saveable_msrs.h"
#include "vmm/translations.h"

namespace kvmsnap {

namespace {

template <typename T>
std::vector<uint8_t> to_bytes(const T& value) {
  const uint8_t* bytes = reinterpret_cast<const uint8_t*>(&value);
  return {bytes, bytes + sizeof value};
}

template <typename T>
std::vector<uint8_t> to_bytes(const std::vector<T>& values) {
  const uint8_t* bytes = reinterpret_cast<const uint8_t*>(values.data());
  return {bytes, bytes + values.size() * sizeof(T)};
}

[[noreturn]] void wrong_length(const char* name, size_t got, size_t wanted) {
  throw Error("ERR_INVALID_ARGUMENT", std::string(name) + " has " + std::to_string(got) +
                                          " bytes where KVM's struct has " +
                                          std::to_string(wanted));
}

template <typename T>
T to_struct(std::span<const uint8_t> bytes, const char* name) {
  if (bytes.size() != sizeof(T)) wrong_length(name, bytes.size(), sizeof(T));
  T value;
  std::memcpy(&value, bytes.data(), sizeof value);
  return value;
}

template <typename T>
std::vector<T> to_array(std::span<const uint8_t> bytes, const char* name) {
  // 4096 is beyond what any KVM has, and what the kernel's own limits allow.
  if (bytes.size() % sizeof(T) != 0 || bytes.size() / sizeof(T) > 4096) {
    wrong_length(name, bytes.size(), sizeof(T));
  }
  std::vector<T> values(bytes.size() / sizeof(T));
  if (!values.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

bool has_xsaves(const std::vector<kvm_cpuid_entry2>& entries) {
  return std::any_of(entries.begin(), entries.end(), [](const kvm_cpuid_entry2& entry) {
    return entry.function == 0xD && entry.index == 1 && (entry.eax & 1 << 3) != 0;
  });
}

size_t xsave_size() {
  static const size_t size = std::max<size_t>(
      sizeof(kvm_xsave), static_cast<size_t>(Kvm::instance().check_extension(KVM_CAP_XSAVE2)));
  return size;
}

// A snapshot of a host with fewer state components is a prefix; one of a host with more is refused
// unless what is beyond ours is empty.
std::vector<uint8_t> fit_xsave(std::span<const uint8_t> bytes) {
  bool fits = bytes.size() >= sizeof(kvm_xsave) &&
              (bytes.size() <= xsave_size() ||
               std::all_of(bytes.begin() + static_cast<ptrdiff_t>(xsave_size()), bytes.end(),
                           [](uint8_t byte) { return byte == 0; }));
  if (!fits) wrong_length("xsave2", bytes.size(), xsave_size());
  std::vector<uint8_t> fitted(bytes.begin(), bytes.end());
  fitted.resize(xsave_size());
  return fitted;
}

// Without it KVM_KVMCLOCK_CTRL has nothing to tell.
bool has_kvmclock(std::span<const uint8_t> msrs) {
  std::vector<kvm_msr_entry> entries = to_array<kvm_msr_entry>(msrs, "msrs");
  return std::any_of(entries.begin(), entries.end(), [](const kvm_msr_entry& entry) {
    return (entry.index == kMsrKvmSystemTime || entry.index == kMsrKvmSystemTimeNew) &&
           (entry.data & 1) != 0;
  });
}

}  // namespace

std::optional<VcpuSection> vcpu_section_by_name(std::string_view name) {
  for (size_t i = 0; i < kVcpuSections; i++) {
    if (name == kVcpuSectionNames[i]) return static_cast<VcpuSection>(i);
  }
  return std::nullopt;
}

VcpuRegisters::VcpuRegisters(const VcpuFd& fd, uint32_t index, bool irqchip,
                             std::vector<uint8_t> cpuid)
    : fd_(fd), index_(index), irqchip_(irqchip) {
  set_cpuid(cpuid);
}

std::vector<uint8_t> VcpuRegisters::get(VcpuSection section) const {
  switch (section) {
    case VcpuSection::Cpuid2:
      return cpuid_;
    case VcpuSection::Sregs2:
      return to_bytes(fd_.sregs2());
    case VcpuSection::Regs:
      return to_bytes(fd_.regs());
    case VcpuSection::Xsave2: {
      std::vector<uint8_t> bytes(xsave_size());
      fd_.xsave2(bytes);
      return bytes;
    }
    case VcpuSection::Xcrs:
      return to_bytes(fd_.xcrs());
    case VcpuSection::Debugregs:
      return to_bytes(fd_.debugregs());
    case VcpuSection::Msrs:
      return get_msrs(saveable_msrs(fd_, msr_traits_));
    case VcpuSection::Lapic:
      if (!irqchip_) return {};
      return to_bytes(fd_.lapic());
    case VcpuSection::VcpuEvents:
      return to_bytes(fd_.vcpu_events());
    case VcpuSection::MpState:
      return to_bytes(fd_.mp_state());
  }
  throw Error("ERR_INVALID_ARGUMENT", "there is no such vCPU section");
}

std::vector<uint8_t> VcpuRegisters::get_msrs(std::span<const uint32_t> indices) const {
  std::vector<kvm_msr_entry> entries(indices.size());
  for (size_t i = 0; i < indices.size(); i++) entries[i].index = indices[i];
  size_t count = fd_.msrs(entries);
  if (count != entries.size()) {
    throw Error("ERR_MSR", "KVM cannot read MSR " + hex(entries[count].index));
  }
  return to_bytes(entries);
}

void VcpuRegisters::set(VcpuSection section, std::span<const uint8_t> bytes) {
  switch (section) {
    case VcpuSection::Cpuid2:
      return set_cpuid(bytes);
    case VcpuSection::Sregs2:
      return fd_.set_sregs2(to_struct<kvm_sregs2>(bytes, "sregs2"));
    case VcpuSection::Regs:
      return fd_.set_regs(to_struct<kvm_regs>(bytes, "regs"));
    case VcpuSection::Xsave2:
      return fd_.set_xsave(fit_xsave(bytes));
    case VcpuSection::Xcrs:
      return fd_.set_xcrs(to_struct<kvm_xcrs>(bytes, "xcrs"));
    case VcpuSection::Debugregs:
      return fd_.set_debugregs(to_struct<kvm_debugregs>(bytes, "debugregs"));
    case VcpuSection::Msrs:
      return set_msrs(bytes, {});
    case VcpuSection::Lapic:
      if (!irqchip_) throw Error("ERR_STATE", "the machine has no in-kernel irqchip, so no LAPIC");
      return fd_.set_lapic(to_struct<kvm_lapic_state>(bytes, "lapic"));
    case VcpuSection::VcpuEvents:
      return fd_.set_vcpu_events(to_struct<kvm_vcpu_events>(bytes, "vcpu_events"));
    case VcpuSection::MpState:
      return fd_.set_mp_state(to_struct<kvm_mp_state>(bytes, "mp_state"));
  }
}

void VcpuRegisters::set_cpuid(std::span<const uint8_t> bytes) {
  if (std::equal(bytes.begin(), bytes.end(), cpuid_.begin(), cpuid_.end())) return;
  std::vector<kvm_cpuid_entry2> entries = to_array<kvm_cpuid_entry2>(bytes, "cpuid2");
  fd_.set_cpuid2(entries);
  cpuid_.assign(bytes.begin(), bytes.end());
  msr_traits_ = {.lapic = irqchip_, .xsaves = has_xsaves(entries)};
}

void VcpuRegisters::set_msrs(std::span<const uint8_t> bytes, std::span<const uint8_t> present) {
  std::vector<kvm_msr_entry> entries = to_array<kvm_msr_entry>(bytes, "msrs");
  std::vector<kvm_msr_entry> there = to_array<kvm_msr_entry>(present, "msrs");
  std::erase_if(entries, [&](const kvm_msr_entry& entry) {
    // The TSC is another by now.
    return entry.index != kMsrTsc &&
           std::any_of(there.begin(), there.end(), [&](const kvm_msr_entry& other) {
             return other.index == entry.index && other.data == entry.data;
           });
  });
  size_t count = fd_.set_msrs(entries);
  if (count == entries.size()) return;
  const kvm_msr_entry& refused = entries[count];
  throw Error("ERR_MSR", "KVM refused to set MSR " + hex(refused.index) + " to " +
                             hex(refused.data) +
                             ": restore on a host whose CPU and KVM have it, or with the value it "
                             "had there");
}

bool VcpuRegisters::has_countdown_timer() const { return irqchip_ && counts_down(fd_.lapic()); }

void VcpuRegisters::note_timer() {
  if (irqchip_) timer_.note(fd_.lapic(), StandingTimer::Clock::now());
}

VcpuState VcpuRegisters::save() const {
  VcpuState state;
  // KVM_GET_MP_STATE first: it makes KVM act on a pending INIT or SIPI, which changes all that
  // follows.
  state[VcpuSection::MpState] = get(VcpuSection::MpState);
  for (size_t i = 0; i < kVcpuSections; i++) {
    VcpuSection section = static_cast<VcpuSection>(i);
    if (section != VcpuSection::MpState) state.sections[i] = get(section);
  }
  if (irqchip_) {
    auto lapic = to_struct<kvm_lapic_state>(state[VcpuSection::Lapic], "lapic");
    timer_.complete(lapic, StandingTimer::Clock::now());
    state[VcpuSection::Lapic] = to_bytes(lapic);
  }
  state.tsc_khz = fd_.tsc_khz();
  return state;
}

// Sections that few guests touch. Setting one to what it is costs an ioctl, 5 µs on some hosts.
constexpr std::array kOftenUntouched = {VcpuSection::Xcrs, VcpuSection::Xsave2,
                                        VcpuSection::Debugregs, VcpuSection::VcpuEvents};

// Read off the first new vCPU with this CPUID, and kept for the next ones.
std::shared_ptr<const VcpuState> VcpuRegisters::state_when_new() const {
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

void VcpuRegisters::load_new(const VcpuState& state) { load_over(state, state_when_new().get()); }

// KVM flushes what the CPU has cached of the guest's page tables when CR3 changes, and only then.
// They may be others than those it ran with, though CR3 is the same.
void VcpuRegisters::flush_guest_tlb(std::span<const uint8_t> sregs) const {
  auto other = to_struct<kvm_sregs2>(sregs, "sregs2");
  other.cr3 ^= kPageSize;
  fd_.set_sregs2(other);
}

void VcpuRegisters::load_over(const VcpuState& state, const VcpuState* present) {
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
  load_section(VcpuSection::Regs);
  // XCR0 before the state that it enables.
  load_section(VcpuSection::Xcrs);
  load_section(VcpuSection::Xsave2);
  load_section(VcpuSection::Debugregs);
  // The LAPIC before MSRs: TSC_DEADLINE is ignored unless the LVT timer is in that mode.
  load_section(VcpuSection::Lapic);
  // The TSC is first among the MSRs and TSC_DEADLINE, in terms of that TSC, last. A deadline of 0
  // is a disarmed timer.
  set_msrs(state[VcpuSection::Msrs],
           present != nullptr ? (*present)[VcpuSection::Msrs] : std::vector<uint8_t>());
  // After the LAPIC, which clears a pending interrupt when it is set.
  load_section(VcpuSection::VcpuEvents);
  // Last: it makes a halted or waiting vCPU what it was.
  bool waits = state[VcpuSection::MpState] != to_bytes(mp_state_when_new());
  if (present == nullptr || waits) load_section(VcpuSection::MpState);
  if (has_kvmclock(state[VcpuSection::Msrs])) fd_.kvmclock_ctrl();
  // KVM_SET_LAPIC has started the timer from there, with nothing pending.
  if (irqchip_) {
    timer_.note(to_struct<kvm_lapic_state>(state[VcpuSection::Lapic], "lapic"),
                StandingTimer::Clock::now());
  }
}

}  // namespace kvmsnap
