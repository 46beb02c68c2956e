#include "vmm/vcpu_state.h"

#include <algorithm>
#include <utility>

#include "kvm/error.h"
#include "kvm/kvm.h"
#include "memory/region_spec.h"
#include "vmm/saveable_msrs.h"
#include "vmm/struct_bytes.h"

namespace kvmsnap {

namespace {

// Intel SDM volume 3, 16.3.1.1: as many machine-check banks as CPUs and other VMMs have, each with
// four registers that a guest can write (KVM's default are 32), and MCG_CTL.
constexpr uint64_t kMcgCtlPresent = uint64_t{1} << 8;
constexpr uint64_t kNewMcgCap = 10 | kMcgCtlPresent;

size_t xsave_size() {
  static const size_t size = std::max<size_t>(
      sizeof(kvm_xsave), static_cast<size_t>(Kvm::instance().check_extension(KVM_CAP_XSAVE2)));
  return size;
}

}  // namespace

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

std::optional<VcpuSection> vcpu_section_by_name(std::string_view name) {
  for (size_t i = 0; i < kVcpuSections; i++) {
    if (name == kVcpuSectionNames[i]) return static_cast<VcpuSection>(i);
  }
  return std::nullopt;
}

VcpuRegisters::VcpuRegisters(const VcpuFd& fd, uint32_t index, bool irqchip,
                             std::vector<uint8_t> cpuid)
    : fd_(fd), deferred_(fd), index_(index), irqchip_(irqchip), mcg_cap_(kNewMcgCap) {
  fd_.setup_mce(mcg_cap_);
  set_cpuid(cpuid);
}

std::vector<uint8_t> VcpuRegisters::get(VcpuSection section) {
  deferred_.flush();
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
      return all_msrs_now();
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

std::vector<uint8_t> VcpuRegisters::get_msrs(std::span<const uint32_t> indices) {
  deferred_.flush();
  std::vector<kvm_msr_entry> entries(indices.size());
  for (size_t i = 0; i < indices.size(); i++) entries[i].index = indices[i];
  size_t count = fd_.msrs(entries);
  if (count != entries.size()) {
    throw Error("ERR_MSR", "KVM cannot read MSR " + hex(entries[count].index));
  }
  return to_bytes(entries);
}

std::vector<uint8_t> VcpuRegisters::all_msrs_now() const {
  std::vector<kvm_msr_entry> msrs = read_saveable_msrs(fd_, kind_->msrs());
  // How many banks there are says which MSRs the state has, and whoever loads it has to know.
  msrs.push_back({.index = kMsrMcgCap, .reserved = 0, .data = mcg_cap_});
  return to_bytes(msrs);
}

void VcpuRegisters::set(VcpuSection section, std::span<const uint8_t> bytes) {
  deferred_.flush();
  if (section != VcpuSection::Cpuid2) new_ = false;
  switch (section) {
    case VcpuSection::Cpuid2:
      return set_cpuid(bytes);
    case VcpuSection::Sregs2:
      return set_sregs(to_struct<kvm_sregs2>(bytes, "sregs2"));
    case VcpuSection::Regs:
      return fd_.set_regs(to_struct<kvm_regs>(bytes, "regs"));
    case VcpuSection::Xsave2:
      return fd_.set_xsave(fit_xsave(bytes));
    case VcpuSection::Xcrs:
      return fd_.set_xcrs(to_struct<kvm_xcrs>(bytes, "xcrs"));
    case VcpuSection::Debugregs:
      return fd_.set_debugregs(to_struct<kvm_debugregs>(bytes, "debugregs"));
    case VcpuSection::Msrs:
      return set_msrs(to_array<kvm_msr_entry>(bytes, "msrs"), {});
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
  find_kind();
}

void VcpuRegisters::set_mcg_cap(uint64_t mcg_cap) {
  if (mcg_cap == mcg_cap_) return;
  fd_.setup_mce(mcg_cap);
  mcg_cap_ = mcg_cap;
  find_kind();
}

void VcpuRegisters::find_kind() {
  kind_ = VcpuKind::of(fd_, new_, {.cpuid = cpuid_, .irqchip = irqchip_, .mcg_cap = mcg_cap_});
}

// Without an in-kernel LAPIC KVM_RUN takes CR8 from here, whatever KVM_SET_SREGS2 has set
// (Documentation/virt/kvm/api.rst, struct kvm_run).
void VcpuRegisters::set_sregs(const kvm_sregs2& sregs) {
  fd_.set_sregs2(sregs);
  fd_.run().cr8 = sregs.cr8;
}

void VcpuRegisters::set_msrs(std::vector<kvm_msr_entry> entries,
                             std::span<const kvm_msr_entry> present) {
  // Not a value that KVM_SET_MSRS takes.
  std::erase_if(entries, [&](const kvm_msr_entry& entry) {
    if (entry.index != kMsrMcgCap) return false;
    set_mcg_cap(entry.data);
    return true;
  });
  // Both lists are mostly in the same order: the next is where the last was found, or soon after.
  size_t at = 0;
  auto is_there = [&](const kvm_msr_entry& entry) {
    for (size_t looked = 0; looked < present.size(); looked++, at++) {
      const kvm_msr_entry& other = present[at % present.size()];
      if (other.index == entry.index) return other.data == entry.data;
    }
    return false;
  };
  bool has_page = false;
  std::vector<kvm_msr_entry> changed;
  changed.reserve(entries.size());
  for (const kvm_msr_entry& entry : entries) {
    // The TSC is another by now.
    if (entry.index != kMsrTsc && is_there(entry)) continue;
    changed.push_back(entry);
    has_page = has_page || entry.index == kMsrHvHypercall;
  }
  // Who owns the page says what KVM does with it: see arrange_msrs.
  if (has_page) {
    for (const kvm_msr_entry& entry : entries) {
      if (entry.index == kMsrHvGuestOsId && is_there(entry)) changed.push_back(entry);
    }
  }
  set_msr_entries(std::move(changed));
}

// KVM takes a TSC within a second of what it expects for an attempt to bring vCPUs in step, and
// sets what it expects (arch/x86/kvm/x86.c, kvm_synchronize_tsc). So the first vCPU's is set far
// off first; those of the others are meant to be in step with it.
void VcpuRegisters::set_msr_entries(std::vector<kvm_msr_entry> entries) {
  constexpr uint64_t kFar = uint64_t{1} << 50;
  auto tsc = std::find_if(entries.begin(), entries.end(),
                          [](const kvm_msr_entry& entry) { return entry.index == kMsrTsc; });
  if (index_ == 0 && tsc != entries.end()) {
    kvm_msr_entry far = *tsc;
    far.data += kFar;
    entries.insert(tsc, far);
  }
  arrange_msrs(entries);
  for (;;) {
    size_t count = fd_.set_msrs(entries);
    if (count == entries.size()) return;
    const kvm_msr_entry refused = entries[count];
    // KVM may refuse to set what it would not change.
    if (!has_msr(refused)) {
      throw Error("ERR_MSR", "KVM refused to set MSR " + hex(refused.index) + " to " +
                                 hex(refused.data) +
                                 ": restore on a host whose CPU and KVM have it, or with the value "
                                 "it had there");
    }
    entries.erase(entries.begin(), entries.begin() + static_cast<ptrdiff_t>(count) + 1);
  }
}

bool VcpuRegisters::has_msr(const kvm_msr_entry& entry) const {
  std::vector<kvm_msr_entry> read = {{.index = entry.index, .reserved = 0, .data = 0}};
  return fd_.msrs(read) == 1 && read[0].data == entry.data;
}

bool VcpuRegisters::is_halted_for_good() {
  switch (fd_.mp_state().mp_state) {
    case KVM_MP_STATE_UNINITIALIZED:
    case KVM_MP_STATE_INIT_RECEIVED:
      return true;
    case KVM_MP_STATE_HALTED:
      break;
    default:
      return false;
  }
  constexpr uint64_t kInterruptFlag = 1 << 9;
  auto regs = to_struct<kvm_regs>(get(VcpuSection::Regs), "regs");
  return (regs.rflags & kInterruptFlag) == 0 && fd_.vcpu_events().nmi.pending == 0;
}

VcpuState VcpuRegisters::save() {
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
    timer_.complete(lapic);
    state[VcpuSection::Lapic] = to_bytes(lapic);
  }
  state.tsc_khz = fd_.tsc_khz();
  return state;
}

}  // namespace kvmsnap
