// A userfaultfd for write protection (Documentation/admin-guide/mm/userfaultfd.rst).
#pragma once

#include <cstdint>

#include "kvm/fd.h"

namespace kvmsnap {

/// What happens at a write to a protected page.
enum class WriteFault : uint8_t {
  /// The writer waits for whoever reads `fd()`. Memory of memfds, and none; not of files. Linux
  /// 6.4.
  Sync,
  /// The kernel takes the protection away by itself; PAGEMAP_SCAN tells. Any memory. Linux 6.7.
  Async,
};

class Userfault {
 public:
  /// Throws ERR_SYSTEM when the kernel has no such thing, or this process may not use it for faults
  /// that KVM causes.
  explicit Userfault(WriteFault mode);

  int fd() const { return fd_.get(); }

  /// All throw ERR_SYSTEM. Ranges are page-aligned and mapped throughout.
  void watch(const uint8_t* host, uint64_t size) const;
  /// Wakes who waits. Ranges that are not watched are no error.
  void forget(const uint8_t* host, uint64_t size) const;
  /// Without protection, who waits is woken.
  void protect(uint64_t address, uint64_t size, bool on) const;
  /// Where nothing is watched any more it does nothing.
  void wake(const uint8_t* host, uint64_t size) const;

 private:
  UniqueFd fd_;
};

}  // namespace kvmsnap
