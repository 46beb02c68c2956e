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

/// KVM_GET_MSR_INDEX_LIST and XSS, less those that this KVM lists but cannot read, in the order in
/// which they are to be set: the TSC first and TSC_DEADLINE last, which is an absolute TSC value:
/// set before the TSC, it would fire at once or never. Found out once, on the first vCPU.
const std::vector<uint32_t>& saveable_msrs(const VcpuFd& fd);

}  // namespace kvmsnap
