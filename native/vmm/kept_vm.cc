#include "vmm/kept_vm.h"

#include <mutex>

#include "kvm/error.h"
#include "kvm/kvm.h"

namespace kvmsnap {

namespace {

struct KeptVm {
  VmFd vm = Kvm::instance().create_vm();
  VcpuFd vcpu = vm.create_vcpu(0);
};

}  // namespace

void keep_kvm_on() {
  static std::mutex mutex;
  static bool second = false;
  // Never freed: for as long as the process lives.
  static const KeptVm* kept = nullptr;
  std::lock_guard lock(mutex);
  if (kept != nullptr) return;
  try {
    if (second) kept = new KeptVm();
  } catch (const std::exception&) {
    // Nothing needs it. What hinders it will meet the machine too, and be reported there.
  }
  second = true;
}

}  // namespace kvmsnap
