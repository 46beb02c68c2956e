// CRC-32C by the instruction, by the table, and by the definition.
#include "memory/crc32c.h"

#include <string_view>

#include "test/catch.h"
#include "test/memory/bytes.h"

namespace kvmsnap {

namespace {

std::span<const uint8_t> bytes_of(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

// Bit by bit, as RFC 3720 defines it.
uint32_t by_definition(std::span<const uint8_t> bytes) {
  uint32_t crc = ~uint32_t{0};
  for (uint8_t byte : bytes) {
    crc ^= byte;
    for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ ((crc & 1) != 0 ? 0x82F63B78 : 0);
  }
  return ~crc;
}

}  // namespace

TEST_CASE("crc32c: the vectors of RFC 3720 B.4") {
  std::vector<uint8_t> zeros(32, 0), ones(32, 0xFF), up, down;
  for (uint8_t i = 0; i < 32; i++) {
    up.push_back(i);
    down.push_back(31 - i);
  }
  for (auto* crc : {&crc32c, &crc32c_by_table}) {
    CHECK(crc(zeros, 0) == 0x8A9136AA);
    CHECK(crc(ones, 0) == 0x62A8AB43);
    CHECK(crc(up, 0) == 0x46DD794E);
    CHECK(crc(down, 0) == 0x113FDB5C);
    CHECK(crc(bytes_of("123456789"), 0) == 0xE3069283);
    CHECK(crc({}, 0) == 0);
  }
}

TEST_CASE("crc32c: all variants agree at every length and alignment, whole or in pieces") {
  Random random(1);
  std::vector<uint8_t> bytes(200000);
  for (auto& byte : bytes) byte = static_cast<uint8_t>(random());
  // Around the three streams of 8192 bytes, and anywhere.
  std::vector<size_t> lengths = {1, 7, 8, 9, 24575, 24576, 24577, 49151, 49152, 49160, 100001};
  for (int i = 0; i < 60; i++) lengths.push_back(below(random, 120000));
  for (size_t length : lengths) {
    size_t offset = below(random, 64);
    std::span<const uint8_t> part(bytes.data() + offset, length);
    INFO("offset " << offset << ", length " << length);
    uint32_t expected = by_definition(part);
    REQUIRE(crc32c(part) == expected);
    REQUIRE(crc32c_by_table(part) == expected);
    size_t cut = below(random, length + 1);
    REQUIRE(crc32c(part.subspan(cut), crc32c(part.first(cut))) == expected);
    REQUIRE(crc32c_by_table(part.subspan(cut), crc32c_by_table(part.first(cut))) == expected);
  }
}

}  // namespace kvmsnap
