// The MSRs that a snapshot holds, and the order in which they are set.
#pragma once

#include <cstdint>
#include <vector>

#include "kvm/vcpu_fd.h"

namespace kvmsnap {

// Intel SDM volume 4, AMD APM volume 2 appendix A.
constexpr uint32_t kMsrTsc = 0x10;
constexpr uint32_t kMsrMcgCap = 0x179;
constexpr uint32_t kMsrTscDeadline = 0x6E0;
constexpr uint32_t kMsrXss = 0xDA0;
constexpr uint32_t kMsrVmCr = 0xC0010114;
// Documentation/virt/kvm/x86/msr.rst.
constexpr uint32_t kMsrKvmSystemTime = 0x12;
constexpr uint32_t kMsrKvmSystemTimeNew = 0x4B564D01;
constexpr uint32_t kMsrKvmAsyncPfEn = 0x4B564D02;
// Hyper-V TLFS, appendix F.
constexpr uint32_t kMsrHvGuestOsId = 0x40000000;
constexpr uint32_t kMsrHvHypercall = 0x40000001;
constexpr uint32_t kMsrHvVpIndex = 0x40000002;

/// The MSRs that hold state of such a vCPU, in the order in which they are to be set. `fd` must be
/// new: nothing but its CPUID and its machine-check banks were ever set.
///
/// What is saved follows from what a guest can write: KVM_GET_MSR_INDEX_LIST names only a part of
/// it. So there are named ranges beside it, of which those count that this KVM reads for this vCPU
/// and takes back.
std::vector<uint32_t> find_saveable_msrs(const VcpuFd& fd);

/// Reads them as they can be set again. Throws ERR_MSR when one cannot be read.
std::vector<kvm_msr_entry> read_saveable_msrs(const VcpuFd& fd,
                                              const std::vector<uint32_t>& indices);

/// Puts `entries` into the order that KVM needs, and adds what it needs in between.
void arrange_msrs(std::vector<kvm_msr_entry>& entries);

}  // namespace kvmsnap
