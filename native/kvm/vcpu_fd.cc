#include "kvm/vcpu_fd.h"

#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>

#include "kvm/error.h"
#include "kvm/flexible.h"

namespace kvmsnap {

namespace {

// A get and a set ioctl on a plain struct.
template <typename T>
T get_struct(int fd, unsigned long request, const char* name) {
  T value = {};
  if (::ioctl(fd, request, &value) < 0) throw_ioctl(name);
  return value;
}
template <typename T>
void set_struct(int fd, unsigned long request, const T& value, const char* name) {
  if (::ioctl(fd, request, &value) < 0) throw_ioctl(name);
}

// KVM takes fewer than MAX_IO_MSRS entries at a time, else E2BIG (arch/x86/kvm/x86.c, msr_io). A
// vCPU of a KVM with Hyper-V and 32 machine-check banks has more.
constexpr size_t kMostMsrs = 255;

// Calls `part` for `count` entries until it does fewer than it was given; returns how many it did.
template <typename Part>
size_t in_parts(size_t count, const Part& part) {
  size_t done = 0;
  while (done < count) {
    size_t given = std::min(count - done, kMostMsrs);
    size_t now = part(done, given);
    done += now;
    if (now < given) break;
  }
  return done;
}

}  // namespace

VcpuFd::VcpuFd(UniqueFd fd, size_t mmap_size)
    : fd_(std::move(fd)), run_(mmap_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd_.get()) {}

Mapping VcpuFd::map_dirty_ring(size_t bytes) const {
  return Mapping(bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd_.get(),
                 static_cast<off_t>(KVM_DIRTY_LOG_PAGE_OFFSET) * ::getpagesize());
}

int VcpuFd::enter() const { return ::ioctl(fd_.get(), KVM_RUN, 0) < 0 ? errno : 0; }

kvm_regs VcpuFd::regs() const {
  return get_struct<kvm_regs>(fd_.get(), KVM_GET_REGS, "KVM_GET_REGS");
}
void VcpuFd::set_regs(const kvm_regs& regs) const {
  set_struct(fd_.get(), KVM_SET_REGS, regs, "KVM_SET_REGS");
}

kvm_sregs2 VcpuFd::sregs2() const {
  return get_struct<kvm_sregs2>(fd_.get(), KVM_GET_SREGS2, "KVM_GET_SREGS2");
}
void VcpuFd::set_sregs2(const kvm_sregs2& sregs) const {
  set_struct(fd_.get(), KVM_SET_SREGS2, sregs, "KVM_SET_SREGS2");
}

void VcpuFd::xsave2(std::span<uint8_t> bytes) const {
  if (::ioctl(fd_.get(), KVM_GET_XSAVE2, bytes.data()) < 0) throw_ioctl("KVM_GET_XSAVE2");
}
void VcpuFd::set_xsave(std::span<const uint8_t> bytes) const {
  if (::ioctl(fd_.get(), KVM_SET_XSAVE, bytes.data()) < 0) throw_ioctl("KVM_SET_XSAVE");
}

kvm_xcrs VcpuFd::xcrs() const {
  return get_struct<kvm_xcrs>(fd_.get(), KVM_GET_XCRS, "KVM_GET_XCRS");
}
void VcpuFd::set_xcrs(const kvm_xcrs& xcrs) const {
  set_struct(fd_.get(), KVM_SET_XCRS, xcrs, "KVM_SET_XCRS");
}

kvm_debugregs VcpuFd::debugregs() const {
  return get_struct<kvm_debugregs>(fd_.get(), KVM_GET_DEBUGREGS, "KVM_GET_DEBUGREGS");
}
void VcpuFd::set_debugregs(const kvm_debugregs& debugregs) const {
  set_struct(fd_.get(), KVM_SET_DEBUGREGS, debugregs, "KVM_SET_DEBUGREGS");
}

size_t VcpuFd::msrs(std::vector<kvm_msr_entry>& entries) const {
  return in_parts(entries.size(), [&](size_t first, size_t count) {
    auto part = std::span<kvm_msr_entry>(entries).subspan(first, count);
    Flexible<kvm_msrs, kvm_msr_entry> list{std::span<const kvm_msr_entry>(part)};
    list->nmsrs = static_cast<uint32_t>(count);
    int done = ::ioctl(fd_.get(), KVM_GET_MSRS, list.get());
    if (done < 0) throw_ioctl("KVM_GET_MSRS");
    std::ranges::copy(list.entries(count), part.begin());
    return static_cast<size_t>(done);
  });
}

size_t VcpuFd::set_msrs(std::span<const kvm_msr_entry> entries) const {
  return in_parts(entries.size(), [&](size_t first, size_t count) {
    Flexible<kvm_msrs, kvm_msr_entry> list(entries.subspan(first, count));
    list->nmsrs = static_cast<uint32_t>(count);
    int done = ::ioctl(fd_.get(), KVM_SET_MSRS, list.get());
    if (done < 0) throw_ioctl("KVM_SET_MSRS");
    return static_cast<size_t>(done);
  });
}

kvm_lapic_state VcpuFd::lapic() const {
  return get_struct<kvm_lapic_state>(fd_.get(), KVM_GET_LAPIC, "KVM_GET_LAPIC");
}
void VcpuFd::set_lapic(const kvm_lapic_state& lapic) const {
  set_struct(fd_.get(), KVM_SET_LAPIC, lapic, "KVM_SET_LAPIC");
}

kvm_mp_state VcpuFd::mp_state() const {
  return get_struct<kvm_mp_state>(fd_.get(), KVM_GET_MP_STATE, "KVM_GET_MP_STATE");
}
void VcpuFd::set_mp_state(const kvm_mp_state& state) const {
  set_struct(fd_.get(), KVM_SET_MP_STATE, state, "KVM_SET_MP_STATE");
}

kvm_vcpu_events VcpuFd::vcpu_events() const {
  return get_struct<kvm_vcpu_events>(fd_.get(), KVM_GET_VCPU_EVENTS, "KVM_GET_VCPU_EVENTS");
}
void VcpuFd::set_vcpu_events(const kvm_vcpu_events& events) const {
  set_struct(fd_.get(), KVM_SET_VCPU_EVENTS, events, "KVM_SET_VCPU_EVENTS");
}

void VcpuFd::set_cpuid2(std::span<const kvm_cpuid_entry2> entries) const {
  Flexible<kvm_cpuid2, kvm_cpuid_entry2> list(entries);
  list->nent = static_cast<uint32_t>(entries.size());
  if (::ioctl(fd_.get(), KVM_SET_CPUID2, list.get()) < 0) throw_ioctl("KVM_SET_CPUID2");
}

void VcpuFd::setup_mce(uint64_t mcg_cap) const {
  __u64 cap = mcg_cap;
  set_struct(fd_.get(), KVM_X86_SETUP_MCE, cap, "KVM_X86_SETUP_MCE");
}

uint32_t VcpuFd::tsc_khz() const {
  int khz = ::ioctl(fd_.get(), KVM_GET_TSC_KHZ, 0);
  return khz < 0 ? 0 : static_cast<uint32_t>(khz);
}

bool VcpuFd::set_tsc_khz(uint32_t khz) const {
  return ::ioctl(fd_.get(), KVM_SET_TSC_KHZ, static_cast<unsigned long>(khz)) == 0;
}

void VcpuFd::kvmclock_ctrl() const {
  if (::ioctl(fd_.get(), KVM_KVMCLOCK_CTRL, 0) < 0 && errno != EINVAL) {
    throw_ioctl("KVM_KVMCLOCK_CTRL");
  }
}

void VcpuFd::unblock_signals_in_guest(bool unblock) const {
  // The kernel's sigset_t, 8 bytes: not glibc's, which has 128.
  Flexible<kvm_signal_mask, uint8_t> mask(sizeof(uint64_t));
  mask->len = sizeof(uint64_t);
  if (::ioctl(fd_.get(), KVM_SET_SIGNAL_MASK, unblock ? mask.get() : nullptr) < 0) {
    throw_ioctl("KVM_SET_SIGNAL_MASK");
  }
}

void VcpuFd::set_guest_debug(const kvm_guest_debug& debug) const {
  set_struct(fd_.get(), KVM_SET_GUEST_DEBUG, debug, "KVM_SET_GUEST_DEBUG");
}

}  // namespace kvmsnap
