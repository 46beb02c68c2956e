// CRC-32C (Castagnoli, RFC 3720 appendix B.4; polynomial 0x1EDC6F41, reflected, inverted in and
// out).
#pragma once

#include <cstdint>
#include <span>

namespace kvmsnap {

/// "123456789" gives 0xE3069283. Uses the SSE4.2 instruction, which every CPU with VMX or SVM since
/// 2011 has, and a table on others. `before`: the CRC of what comes before `bytes`, to go on from.
uint32_t crc32c(std::span<const uint8_t> bytes, uint32_t before = 0);

/// The table variant alone, for tests.
uint32_t crc32c_by_table(std::span<const uint8_t> bytes, uint32_t before = 0);

}  // namespace kvmsnap
