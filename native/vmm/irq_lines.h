// The inputs of the in-kernel irqchip, as user space drives them.
#pragma once

#include <cstdint>

#include "kvm/vm_fd.h"

namespace kvmsnap {

/// KVM keeps for each input who holds it up: user space as one, its PIT as another. No ioctl shows
/// that or takes it back, and an input that one of the two holds has no edges for the other. So
/// what user space holds is remembered here. Not thread-safe.
class IrqLines {
 public:
  explicit IrqLines(const VmFd& vm) : vm_(vm) {}

  /// `gsi` below KVM_IOAPIC_NUM_PINS.
  void set(uint32_t gsi, bool level) {
    vm_.irq_line(gsi, level);
    uint32_t bit = uint32_t{1} << gsi;
    held_ = level ? held_ | bit : held_ & ~bit;
  }
  /// Lets go of all that are held. PIC and IOAPIC may be told of it, so that it comes before their
  /// state is set.
  void release() {
    for (uint32_t gsi = 0; held_ != 0; gsi++) {
      if ((held_ >> gsi & 1) != 0) set(gsi, false);
    }
  }

 private:
  const VmFd& vm_;
  uint32_t held_ = 0;
};

}  // namespace kvmsnap
