// A vCPU's whole state, as the kernel's structs by the kernel's names.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "kvm/uapi.h"
#include "kvm/vcpu_fd.h"
#include "vmm/deferred_registers.h"
#include "vmm/lapic_timer.h"
#include "vmm/saveable_msrs.h"
#include "vmm/vcpu_kind.h"

namespace kvmsnap {

/// One kernel struct of a vCPU. The names are those of the snapshot format.
enum class VcpuSection : uint8_t {
  Cpuid2,
  Sregs2,
  Regs,
  Xsave2,
  Xcrs,
  Debugregs,
  Msrs,
  Lapic,
  VcpuEvents,
  MpState,
};
constexpr size_t kVcpuSections = 10;
constexpr std::array<const char*, kVcpuSections> kVcpuSectionNames = {
    "cpuid2",    "sregs2", "regs",  "xsave2",      "xcrs",
    "debugregs", "msrs",   "lapic", "vcpu_events", "mp_state"};

struct VcpuState {
  /// By section; empty where the machine has none (the LAPIC, without an in-kernel irqchip).
  std::array<std::vector<uint8_t>, kVcpuSections> sections;
  /// 0: not known.
  uint32_t tsc_khz = 0;

  std::vector<uint8_t>& operator[](VcpuSection section) {
    return sections[static_cast<size_t>(section)];
  }
  const std::vector<uint8_t>& operator[](VcpuSection section) const {
    return sections[static_cast<size_t>(section)];
  }
};

std::optional<VcpuSection> vcpu_section_by_name(std::string_view name);

/// As many bytes as this KVM wants. A snapshot of a host with fewer state components is a prefix;
/// one of a host with more is refused unless what is beyond ours is empty.
std::vector<uint8_t> fit_xsave(std::span<const uint8_t> bytes);

/// A vCPU that does not run: what is between its ioctls and the state above.
class VcpuRegisters {
 public:
  /// `cpuid` is set at once: what other state KVM accepts depends on it.
  VcpuRegisters(const VcpuFd& fd, uint32_t index, bool irqchip, std::vector<uint8_t> cpuid);

  std::vector<uint8_t> get(VcpuSection section);
  /// Throws ERR_INVALID_ARGUMENT for a wrong length, ERR_MSR naming the MSR that KVM refused.
  void set(VcpuSection section, std::span<const uint8_t> bytes);
  std::vector<uint8_t> get_msrs(std::span<const uint32_t> indices);

  /// KVM_RUN, with what was deferred. As VcpuFd::enter.
  int enter() {
    new_ = false;
    return deferred_.enter();
  }

  /// The vCPU stands: finds out what its LAPIC timer does, once (StandingTimer). Enters the vCPU,
  /// which executes nothing, so that only a vCPU's own thread may do it; waits only where an
  /// expired one-shot may have an interrupt on its way.
  void note_timer();
  /// The same where a look is enough, for any thread. False: it is not.
  bool note_timer_at_sight();
  /// Running the vCPU, or setting its LAPIC.
  void forget_timer() { timer_.forget(); }

  /// Whether nothing of this machine will make it execute an instruction again: it is halted with
  /// interrupts off, or waits for another vCPU to start it. The vCPU must stand.
  bool is_halted_for_good();

  VcpuState save();
  /// In the one order that works; see the comments inside.
  void load(const VcpuState& state) { load_over(state, nullptr, false); }
  /// The same for a vCPU of which nothing but the CPUID was ever set, leaving out what it has
  /// already.
  void load_new(const VcpuState& state);
  /// The same for a state that this vCPU has had: what KVM_RUN can set itself is left to it.
  void load_again(const VcpuState& state) { load_over(state, nullptr, true); }
  /// The same for a vCPU that has not left ring 3 since it was in that state (Confinement).
  void load_confined(const VcpuState& state);
  /// The same for a vCPU that has not run since: only what time changes.
  void load_time(const VcpuState& state);

 private:
  /// `present`: what the vCPU has already, as far as known.
  void load_over(const VcpuState& state, const VcpuState* present, bool deferring);
  /// MSRs that are not set again to the value that they have, with that value.
  std::vector<kvm_msr_entry> msrs_left_alone(const std::vector<kvm_msr_entry>& wanted);
  /// Adds what a state of an older release or of another KVM lacks, as it is in a new vCPU.
  void complete(std::vector<kvm_msr_entry>& msrs) const;
  void finish_load(const VcpuState& state);
  void push_timer_interrupt();
  void note_expired();
  void defer_registers(const VcpuState& state);
  void flush_guest_tlb(std::span<const uint8_t> sregs) const;
  std::shared_ptr<const VcpuState> state_when_new();
  kvm_mp_state mp_state_when_new() const;
  void set_cpuid(std::span<const uint8_t> bytes);
  void set_mcg_cap(uint64_t mcg_cap);
  void find_kind();
  void set_sregs(const kvm_sregs2& sregs);
  /// Leaves out those that are in `present` with the same value.
  void set_msrs(std::vector<kvm_msr_entry> entries, std::span<const kvm_msr_entry> present);
  void set_msr_entries(std::vector<kvm_msr_entry> entries);
  std::vector<uint8_t> all_msrs_now() const;
  /// Whether it has that value.
  bool has_msr(const kvm_msr_entry& entry) const;

  const VcpuFd& fd_;
  DeferredRegisters deferred_;
  uint32_t index_;
  bool irqchip_;
  /// What KVM has, so that setting the same again (KVM refuses it after the first run on some
  /// kernels) is left out.
  std::vector<uint8_t> cpuid_;
  uint64_t mcg_cap_;
  /// Nothing but those two was ever set.
  bool new_ = true;
  std::shared_ptr<const VcpuKind> kind_;
  /// 0: to be asked for.
  uint32_t tsc_khz_ = 0;
  StandingTimer timer_;
};

}  // namespace kvmsnap
