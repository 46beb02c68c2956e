// The published vectors of FIPS 180-4, and two messages at a time against one.
#include "memory/sha256.h"

#include <random>
#include <string>
#include <vector>

#include "test/catch.h"

namespace kvmsnap {
namespace {

std::span<const uint8_t> bytes_of(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

std::string hex(const Sha256& digest) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (uint8_t byte : digest) {
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

std::string digest_of(std::span<const uint8_t> bytes) {
  auto digest = make_instruction_sha256();
  digest->update(bytes);
  return hex(digest->finish());
}

TEST_CASE("SHA-256 gives the published digests") {
  if (!has_sha_instructions()) {
    WARN("this CPU has no SHA instructions");
    return;
  }
  CHECK(digest_of({}) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(digest_of(bytes_of("abc")) ==
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(digest_of(bytes_of("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq")) ==
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  CHECK(digest_of(bytes_of(std::string(1000000, 'a'))) ==
        "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST_CASE("two messages at a time, in pieces of any length, give what each gives alone") {
  if (!has_sha_instructions()) {
    WARN("this CPU has no SHA instructions");
    return;
  }
  std::mt19937 random(1);
  for (int run = 0; run < 300; run++) {
    auto one = make_instruction_sha256(), two = make_instruction_sha256();
    std::vector<uint8_t> first, second;
    for (int pieces = static_cast<int>(random() % 6); pieces > 0; pieces--) {
      // Half of the pieces are whole blocks, as the writer's are.
      size_t unit = random() % 2 ? 64 : 1;
      std::vector<uint8_t> a(random() % 300 / unit * unit), b(random() % 300 / unit * unit);
      for (auto& byte : a) byte = static_cast<uint8_t>(random());
      for (auto& byte : b) byte = static_cast<uint8_t>(random());
      one->update_two(a, *two, b);
      first.insert(first.end(), a.begin(), a.end());
      second.insert(second.end(), b.begin(), b.end());
    }
    REQUIRE(hex(one->finish()) == digest_of(first));
    REQUIRE(hex(two->finish()) == digest_of(second));
  }
}

}  // namespace
}  // namespace kvmsnap
