#include "vmm/deferred_registers.h"

#include <algorithm>
#include <utility>

#include "kvm/kvm.h"

namespace kvmsnap {

namespace {

// Intel SDM volume 3, 2.5 and 2.2.1.
constexpr uint64_t kCr0Paging = uint64_t{1} << 31;
constexpr uint64_t kCr4PhysicalAddressExtension = uint64_t{1} << 5;
constexpr uint64_t kEferLongModeActive = uint64_t{1} << 10;

bool can_sync(uint64_t mask) {
  static const uint64_t fields =
      static_cast<uint64_t>(Kvm::instance().check_extension(KVM_CAP_SYNC_REGS));
  return (fields & mask) == mask;
}

bool has_pdptrs(const kvm_sregs2& sregs) {
  return (sregs.cr0 & kCr0Paging) != 0 && (sregs.cr4 & kCr4PhysicalAddressExtension) != 0 &&
         (sregs.efer & kEferLongModeActive) == 0;
}

kvm_sregs without_pdptrs(const kvm_sregs2& sregs) {
  return {
      .cs = sregs.cs,
      .ds = sregs.ds,
      .es = sregs.es,
      .fs = sregs.fs,
      .gs = sregs.gs,
      .ss = sregs.ss,
      .tr = sregs.tr,
      .ldt = sregs.ldt,
      .gdt = sregs.gdt,
      .idt = sregs.idt,
      .cr0 = sregs.cr0,
      .cr2 = sregs.cr2,
      .cr3 = sregs.cr3,
      .cr4 = sregs.cr4,
      .cr8 = sregs.cr8,
      .efer = sregs.efer,
      .apic_base = sregs.apic_base,
      .interrupt_bitmap = {},
  };
}

}  // namespace

void DeferredRegisters::defer(const kvm_regs& regs, const kvm_vcpu_events& events) {
  if (!can_sync(KVM_SYNC_X86_REGS | KVM_SYNC_X86_EVENTS)) {
    fd_.set_regs(regs);
    fd_.set_vcpu_events(events);
    return;
  }
  fd_.run().s.regs.regs = regs;
  fd_.run().s.regs.events = events;
  mask_ |= KVM_SYNC_X86_REGS | KVM_SYNC_X86_EVENTS;
}

bool DeferredRegisters::defer(const kvm_sregs2& sregs) {
  if (has_pdptrs(sregs) || !can_sync(KVM_SYNC_X86_SREGS)) return false;
  sregs_ = sregs;
  fd_.run().s.regs.sregs = without_pdptrs(sregs);
  mask_ |= KVM_SYNC_X86_SREGS;
  return true;
}

// In the order of the kernel's sync_regs, arch/x86/kvm/x86.c.
void DeferredRegisters::flush() {
  const kvm_sync_regs& held = fd_.run().s.regs;
  // What cannot be set stays deferred, and is not lost.
  auto set = [&](uint64_t field, auto set_field) {
    if ((mask_ & field) == 0) return;
    set_field();
    mask_ &= ~field;
  };
  set(KVM_SYNC_X86_REGS, [&] { fd_.set_regs(held.regs); });
  set(KVM_SYNC_X86_SREGS, [&] { fd_.set_sregs2(sregs_); });
  set(KVM_SYNC_X86_EVENTS, [&] { fd_.set_vcpu_events(held.events); });
}

// KVM looks at them before `immediate_exit`, so that they are set whatever KVM_RUN returns.
int DeferredRegisters::enter() {
  fd_.run().kvm_dirty_regs = std::exchange(mask_, 0);
  return fd_.enter();
}

}  // namespace kvmsnap
