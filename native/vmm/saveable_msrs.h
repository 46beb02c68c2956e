// The MSRs that a snapshot holds.
#pragma once

#include <cstdint>
#include <vector>

#include "kvm/vcpu_fd.h"

namespace kvmsnap {

// Intel SDM volume 4, AMD APM volume 2 appendix A.
constexpr uint32_t kMsrTsc = 0x10;
constexpr uint32_t kMsrTscDeadline = 0x6E0;
constexpr uint32_t kMsrXss = 0xDA0;
// Documentation/virt/kvm/x86/msr.rst.
constexpr uint32_t kMsrKvmSystemTime = 0x12;
constexpr uint32_t kMsrKvmSystemTimeNew = 0x4B564D01;
constexpr uint32_t kMsrKvmAsyncPfEn = 0x4B564D02;
constexpr uint32_t kMsrKvmPvEoiEn = 0x4B564D04;
constexpr uint32_t kMsrKvmAsyncPfInt = 0x4B564D06;
constexpr uint32_t kMsrKvmAsyncPfAck = 0x4B564D07;

/// What a vCPU has, as far as it decides which MSRs hold state.
struct MsrTraits {
  /// Without an in-kernel LAPIC KVM reads the MSRs of paravirtual interrupts as 0, and refuses to
  /// set them even to that.
  bool lapic = false;
  /// CPUID leaf 0xD subleaf 1 EAX bit 3: without it the same holds for XSS.
  bool xsaves = false;
};

/// KVM_GET_MSR_INDEX_LIST and XSS, less those that hold no state on such a vCPU or that this KVM
/// lists but cannot read, in the order in which they are to be set: the TSC first and TSC_DEADLINE
/// last, which is an absolute TSC value: set before the TSC, it would fire at once or never. Found
/// out on the first vCPU of its kind.
const std::vector<uint32_t>& saveable_msrs(const VcpuFd& fd, MsrTraits traits);

}  // namespace kvmsnap
