// Sole owner of a range of host virtual addresses: unmaps it, whatever is mapped inside by then.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <utility>

#include "kvm/error.h"

namespace kvmsnap {

class Mapping {
 public:
  Mapping() = default;
  Mapping(size_t size, int protection, int flags, int fd, off_t offset = 0) : size_(size) {
    void* address = ::mmap(nullptr, size, protection, flags, fd, offset);
    if (address == MAP_FAILED) throw_system("mmap");
    address_ = static_cast<uint8_t*>(address);
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
