// A userfaultfd: for write protection, or for pages that are not there yet
// (Documentation/admin-guide/mm/userfaultfd.rst). One descriptor does one of the two.
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

/// Who touches a page that is not there waits for whoever reads `fd()`. Memory of memfds, and none;
/// not of files. Linux 4.11.
struct MissingFault {};

class Userfault {
 public:
  /// Throws ERR_SYSTEM when the kernel has no such thing, or this process may not use it for faults
  /// that KVM causes.
  explicit Userfault(WriteFault mode);
  explicit Userfault(MissingFault);

  int fd() const { return fd_.get(); }
  /// Nothing is watched any more; only its destructor may be called after this.
  void close() { fd_ = UniqueFd(); }

  /// All throw ERR_SYSTEM. Ranges are page-aligned and mapped throughout.
  void watch(const uint8_t* host, uint64_t size) const;
  /// Wakes who waits. Ranges that are not watched are no error.
  void forget(const uint8_t* host, uint64_t size) const;
  /// Without protection, who waits is woken.
  void protect(uint64_t address, uint64_t size, bool on) const;

  // For missing pages. Where nothing is watched any more these do nothing: nobody waits there.
  void watch_missing(const uint8_t* host, uint64_t size) const;
  /// Puts whole pages where there are none, and wakes who waits for them. A page that is there
  /// already stays as it is.
  void copy(uint8_t* to, const uint8_t* from, uint64_t size) const;
  void zero(uint8_t* to, uint64_t size) const;
  void wake(const uint8_t* host, uint64_t size) const;

 private:
  UniqueFd fd_;
};

}  // namespace kvmsnap
