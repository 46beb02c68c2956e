// /dev/kvm itself: the system ioctls (Documentation/virt/kvm/api.rst), one method each.
#pragma once

#include <cstdint>
#include <vector>

#include "kvm/fd.h"
#include "kvm/uapi.h"
#include "kvm/vm_fd.h"

namespace kvmsnap {

class Kvm {
 public:
  /// The process's one handle, opened at first use. Throws ERR_NO_KVM with what to do; a later call
  /// tries again.
  static const Kvm& instance();

  /// KVM_GET_API_VERSION: 12 on every kernel since 2.6.22.
  int api_version() const;
  /// KVM_CHECK_EXTENSION: 0 when absent.
  int check_extension(int capability) const;
  /// KVM_GET_VCPU_MMAP_SIZE: bytes of kvm_run and what is mapped behind it.
  size_t vcpu_mmap_size() const { return vcpu_mmap_size_; }
  /// KVM_GET_SUPPORTED_CPUID.
  std::vector<kvm_cpuid_entry2> supported_cpuid() const;
  /// KVM_GET_MSR_INDEX_LIST: the MSRs that guest state is made of.
  std::vector<uint32_t> msr_index_list() const;
  /// KVM_CREATE_VM, type 0.
  VmFd create_vm() const;

 private:
  explicit Kvm(UniqueFd fd);

  UniqueFd fd_;
  size_t vcpu_mmap_size_;
};

}  // namespace kvmsnap
