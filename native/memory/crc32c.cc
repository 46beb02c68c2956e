#include "memory/crc32c.h"

#include <nmmintrin.h>

#include <array>
#include <cstring>

namespace kvmsnap {

namespace {

// The polynomial, bit-reversed.
constexpr uint32_t kReflected = 0x82F63B78;

constexpr std::array<uint32_t, 256> make_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t byte = 0; byte < 256; byte++) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? kReflected : 0);
    table[byte] = crc;
  }
  return table;
}

constexpr std::array<uint32_t, 256> kTable = make_table();

// Advancing a CRC over n zero bytes is linear over GF(2): a 32 x 32 bit matrix, kept as four tables
// of 256 so that one application is four look-ups. With it, three independent streams hide the
// instruction's latency of three cycles and are joined afterwards.
constexpr size_t kStreamBytes = 8192;

struct ZeroShift {
  std::array<std::array<uint32_t, 256>, 4> table;

  constexpr uint32_t operator()(uint32_t crc) const {
    return table[0][crc & 0xFF] ^ table[1][crc >> 8 & 0xFF] ^ table[2][crc >> 16 & 0xFF] ^
           table[3][crc >> 24];
  }
};

ZeroShift make_zero_shift(size_t zeros) {
  std::array<uint32_t, 32> columns;
  for (int bit = 0; bit < 32; bit++) {
    uint32_t crc = uint32_t{1} << bit;
    for (size_t i = 0; i < zeros; i++) crc = crc >> 8 ^ kTable[crc & 0xFF];
    columns[bit] = crc;
  }
  ZeroShift shift{};
  for (int byte = 0; byte < 4; byte++) {
    for (uint32_t value = 0; value < 256; value++) {
      for (int bit = 0; bit < 8; bit++) {
        if (value >> bit & 1) shift.table[byte][value] ^= columns[8 * byte + bit];
      }
    }
  }
  return shift;
}

__attribute__((target("sse4.2"))) uint64_t step(uint64_t crc, const uint8_t* at) {
  uint64_t word;
  std::memcpy(&word, at, sizeof word);
  return _mm_crc32_u64(crc, word);
}

__attribute__((target("sse4.2"))) uint32_t by_instruction(std::span<const uint8_t> bytes,
                                                          uint32_t before) {
  static const ZeroShift shift = make_zero_shift(kStreamBytes);
  const uint8_t* at = bytes.data();
  size_t left = bytes.size();
  uint64_t crc = ~before;
  for (; left >= 3 * kStreamBytes; at += 3 * kStreamBytes, left -= 3 * kStreamBytes) {
    uint64_t second = 0, third = 0;
    for (size_t i = 0; i < kStreamBytes; i += 8) {
      crc = step(crc, at + i);
      second = step(second, at + kStreamBytes + i);
      third = step(third, at + 2 * kStreamBytes + i);
    }
    crc = shift(static_cast<uint32_t>(crc)) ^ second;
    crc = shift(static_cast<uint32_t>(crc)) ^ third;
  }
  for (; left >= 8; at += 8, left -= 8) crc = step(crc, at);
  for (; left > 0; at++, left--) crc = _mm_crc32_u8(static_cast<uint32_t>(crc), *at);
  return ~static_cast<uint32_t>(crc);
}

}  // namespace

uint32_t crc32c_by_table(std::span<const uint8_t> bytes, uint32_t before) {
  uint32_t crc = ~before;
  for (uint8_t byte : bytes) crc = crc >> 8 ^ kTable[(crc ^ byte) & 0xFF];
  return ~crc;
}

uint32_t crc32c(std::span<const uint8_t> bytes, uint32_t before) {
  return __builtin_cpu_supports("sse4.2") ? by_instruction(bytes, before)
                                          : crc32c_by_table(bytes, before);
}

}  // namespace kvmsnap
