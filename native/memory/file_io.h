// Positional writes that either write everything or throw.
#pragma once

#include <unistd.h>

#include <cstdint>

#include "kvm/error.h"

namespace kvmsnap {

/// Throws ERR_SYSTEM. `bytes` may be guest memory: a page that cannot be read is EFAULT.
inline void write_all(int fd, const uint8_t* bytes, uint64_t length, uint64_t offset) {
  while (length > 0) {
    ssize_t count = ::pwrite(fd, bytes, length, static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw_system("pwrite", errno == ENOSPC ? "free space, then try again" : "");
    bytes += count;
    length -= static_cast<uint64_t>(count);
    offset += static_cast<uint64_t>(count);
  }
}

}  // namespace kvmsnap
