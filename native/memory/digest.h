// A running SHA-256, supplied from outside: the addon has one of SHA instructions (memory/sha256.h)
// and Node's OpenSSL, tests have their own.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>

namespace kvmsnap {

using Sha256 = std::array<uint8_t, 32>;

class Digest {
 public:
  virtual ~Digest() = default;
  virtual void update(std::span<const uint8_t> bytes) = 0;
  /// Updates this and another: where it can, at the same time.
  virtual void update_two(std::span<const uint8_t> bytes, Digest& other,
                          std::span<const uint8_t> other_bytes) {
    update(bytes);
    other.update(other_bytes);
  }
  virtual Sha256 finish() = 0;
};

using DigestFactory = std::unique_ptr<Digest> (*)();

}  // namespace kvmsnap
