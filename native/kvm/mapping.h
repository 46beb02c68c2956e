// Sole owner of a range of host virtual addresses: unmaps it, whatever is mapped inside by then.
// All that is mapped here, and by `map_over`, holds a guest's bytes: no core dump of the process
// has any of it.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <utility>

#include "kvm/error.h"

namespace kvmsnap {

/// Keeps a range out of core dumps. The kernel forgets that for what is mapped over it.
inline void hide_from_dumps(void* address, size_t size) {
  // Fails only where a mapping would have to be cut in two: ranges are whole mappings.
  static_cast<void>(::madvise(address, size, MADV_DONTDUMP));
}

/// Maps over a part of a range that is mapped already, for whoever calls `hide_from_dumps` for all
/// of it.
inline bool map_over_visibly(void* address, size_t size, int protection, int flags, int fd,
                             off_t offset = 0) {
  return ::mmap(address, size, protection, flags | MAP_FIXED, fd, offset) != MAP_FAILED;
}

/// Maps over a part of a range that is mapped already. False: it failed, for the reason in `errno`.
inline bool map_over(void* address, size_t size, int protection, int flags, int fd,
                     off_t offset = 0) {
  if (!map_over_visibly(address, size, protection, flags, fd, offset)) return false;
  hide_from_dumps(address, size);
  return true;
}

class Mapping {
 public:
  Mapping() = default;
  Mapping(size_t size, int protection, int flags, int fd, off_t offset = 0) : size_(size) {
    void* address = ::mmap(nullptr, size, protection, flags, fd, offset);
    if (address == MAP_FAILED) throw_system("mmap");
    hide_from_dumps(address, size);
    address_ = static_cast<uint8_t*>(address);
  }
  /// Zeros that can be written, for copies of guest memory.
  static Mapping buffer(size_t size) {
    return Mapping(size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
  }
  /// Takes over a range that is mapped already.
  static Mapping adopt(void* address, size_t size) {
    Mapping mapping;
    mapping.address_ = static_cast<uint8_t*>(address);
    mapping.size_ = size;
    return mapping;
  }
  Mapping(Mapping&& other) noexcept
      : address_(std::exchange(other.address_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  Mapping& operator=(Mapping&& other) noexcept {
    if (this != &other) {
      reset();
      address_ = std::exchange(other.address_, nullptr);
      size_ = std::exchange(other.size_, 0);
    }
    return *this;
  }
  ~Mapping() { reset(); }

  uint8_t* get() const { return address_; }
  size_t size() const { return size_; }
  void reset() {
    if (address_ != nullptr) ::munmap(std::exchange(address_, nullptr), std::exchange(size_, 0));
  }

 private:
  uint8_t* address_ = nullptr;
  size_t size_ = 0;
};

}  // namespace kvmsnap
