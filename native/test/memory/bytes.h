// What the memory tests share: files with known content, and a seed that a failure names.
#pragma once

#include <unistd.h>

#include <cstdint>
#include <memory>
#include <random>
#include <span>
#include <vector>

#include "memory/backing_file.h"
#include "memory/file_io.h"
#include "memory/region_spec.h"

namespace kvmsnap {

using Random = std::mt19937_64;

inline uint64_t below(Random& random, uint64_t limit) { return random() % limit; }

/// Bytes that differ from page to page; one page in four is zeros.
inline std::vector<uint8_t> random_pages(Random& random, uint64_t pages) {
  std::vector<uint8_t> bytes(pages * kPageSize);
  for (uint64_t page = 0; page < pages; page++) {
    if (below(random, 4) == 0) continue;
    for (uint64_t at = 0; at < kPageSize; at += 8) {
      uint64_t word = random();
      for (int byte = 0; byte < 8; byte++) {
        bytes[page * kPageSize + at + byte] = static_cast<uint8_t>(word >> 8 * byte);
      }
    }
  }
  return bytes;
}

inline std::shared_ptr<BackingFile> file_of(std::span<const uint8_t> bytes) {
  auto file = BackingFile::create_memfd("kvmsnap-test", bytes.size());
  write_all(file->fd(), bytes.data(), bytes.size(), 0);
  return file;
}

/// The code of the error that `work` throws; empty when it throws none.
template <typename Work>
std::string code_of(Work&& work) {
  try {
    work();
  } catch (const Error& error) {
    return error.code();
  }
  return {};
}

}  // namespace kvmsnap
