#include "vmm/vcpu_kind.h"

#include <algorithm>
#include <deque>

#include "kvm/kvm.h"
#include "vmm/kick.h"
#include "vmm/saveable_msrs.h"
#include "vmm/struct_bytes.h"

namespace kvmsnap {

namespace {

// A process has machines of a few kinds; who makes up CPUIDs without end does not fill memory.
constexpr size_t kMostKinds = 32;

// CPUID less what tells one vCPU of a machine from the next: APIC ids (Intel SDM volume 2, CPUID,
// leaves 1, 0xB and 0x1F; AMD APM volume 3, leaf 0x8000001E).
std::vector<kvm_cpuid_entry2> without_ids(std::span<const uint8_t> cpuid) {
  auto entries = to_array<kvm_cpuid_entry2>(cpuid, "cpuid2");
  for (kvm_cpuid_entry2& entry : entries) {
    if (entry.function == 1) entry.ebx &= 0x00FFFFFF;
    if (entry.function == 0xB || entry.function == 0x1F) entry.edx = 0;
    if (entry.function == 0x8000001E) entry.eax = entry.ebx = entry.ecx = 0;
  }
  return entries;
}

struct Known {
  std::vector<uint8_t> cpuid;
  bool irqchip;
  uint64_t mcg_cap;
  std::shared_ptr<const VcpuKind> kind;
};

}  // namespace

VcpuKind::VcpuKind(const VcpuFd& fd)
    : msrs_(find_saveable_msrs(fd)),
      new_msrs_(read_saveable_msrs(fd, msrs_)),
      has_vm_cr_(std::find(msrs_.begin(), msrs_.end(), kMsrVmCr) != msrs_.end()) {}

std::shared_ptr<const VcpuKind> VcpuKind::of(const VcpuFd& fd, bool is_new,
                                             const VcpuTraits& traits) {
  static std::mutex mutex;
  static auto* kinds = new std::deque<Known>();
  std::vector<kvm_cpuid_entry2> entries = without_ids(traits.cpuid);
  Known wanted{to_bytes(entries), traits.irqchip, traits.mcg_cap, nullptr};
  std::lock_guard lock(mutex);
  auto known = std::find_if(kinds->begin(), kinds->end(), [&](const Known& other) {
    return other.irqchip == wanted.irqchip && other.mcg_cap == wanted.mcg_cap &&
           other.cpuid == wanted.cpuid;
  });
  if (known != kinds->end()) return known->kind;
  if (is_new) {
    wanted.kind = std::shared_ptr<const VcpuKind>(new VcpuKind(fd));
  } else {
    // KVM_CREATE_VM fails with EINTR when a signal comes.
    BlockedSignals blocked;
    VmFd vm = Kvm::instance().create_vm();
    if (traits.irqchip) vm.create_irqchip();
    VcpuFd other = vm.create_vcpu(0);
    other.set_cpuid2(entries);
    other.setup_mce(traits.mcg_cap);
    wanted.kind = std::shared_ptr<const VcpuKind>(new VcpuKind(other));
  }
  if (kinds->size() == kMostKinds) kinds->pop_front();
  kinds->push_back(wanted);
  return wanted.kind;
}

}  // namespace kvmsnap
