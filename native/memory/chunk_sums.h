// What the bytes of a snapshot's memory part should be, told by checksums.
#pragma once

#include <cstdint>
#include <vector>

namespace kvmsnap {

struct ChunkSums {
  /// Bytes that one checksum covers.
  uint64_t chunk = 0;
  /// CRC-32C of each chunk of the file in turn; the last chunk may be short.
  std::vector<uint32_t> crc32c;

  bool operator==(const ChunkSums&) const = default;
};

}  // namespace kvmsnap
