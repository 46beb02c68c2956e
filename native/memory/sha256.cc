#include "memory/sha256.h"

#include <cpuid.h>
#include <immintrin.h>

#include <algorithm>
#include <cstring>

namespace kvmsnap {

namespace {

constexpr size_t kBlock = 64;

// FIPS 180-4, 4.2.2.
alignas(16) constexpr uint32_t kRoundConstants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

// FIPS 180-4, 5.3.3.
constexpr std::array<uint32_t, 8> kInitial = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                              0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

// One message: eight words of state, A to H, and where its next block lies.
struct Lane {
  uint32_t* state;
  const uint8_t* blocks;
};

// The instructions want the state as the vectors ABEF and CDGH, highest word first.
template <size_t kLanes>
__attribute__((target("sha,sse4.1"))) void compress(const std::array<Lane, kLanes>& lanes,
                                                    size_t blocks) {
  const __m128i big_endian = _mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3);
  __m128i abef[kLanes], cdgh[kLanes], words[kLanes][4], abef_before[kLanes], cdgh_before[kLanes];
  for (size_t lane = 0; lane < kLanes; lane++) {
    const auto* state = reinterpret_cast<const __m128i*>(lanes[lane].state);
    __m128i badc = _mm_shuffle_epi32(_mm_loadu_si128(state), 0xB1);
    __m128i hgfe = _mm_shuffle_epi32(_mm_loadu_si128(state + 1), 0x1B);
    abef[lane] = _mm_alignr_epi8(badc, hgfe, 8);
    cdgh[lane] = _mm_blend_epi16(hgfe, badc, 0xF0);
  }
  for (size_t block = 0; block < blocks; block++) {
    for (size_t lane = 0; lane < kLanes; lane++) {
      abef_before[lane] = abef[lane];
      cdgh_before[lane] = cdgh[lane];
      const auto* message = reinterpret_cast<const __m128i*>(lanes[lane].blocks + block * kBlock);
      for (size_t i = 0; i < 4; i++) {
        words[lane][i] = _mm_shuffle_epi8(_mm_loadu_si128(message + i), big_endian);
      }
    }
    // Four rounds at a time. Unrolled, so that `words` are registers.
#pragma GCC unroll 16
    for (size_t four = 0; four < 16; four++) {
      __m128i constants =
          _mm_load_si128(reinterpret_cast<const __m128i*>(kRoundConstants + 4 * four));
#pragma GCC unroll 2
      for (size_t lane = 0; lane < kLanes; lane++) {
        __m128i& oldest = words[lane][four % 4];
        __m128i sum = _mm_add_epi32(oldest, constants);
        cdgh[lane] = _mm_sha256rnds2_epu32(cdgh[lane], abef[lane], sum);
        abef[lane] = _mm_sha256rnds2_epu32(abef[lane], cdgh[lane], _mm_shuffle_epi32(sum, 0x0E));
        if (four < 12) {
          // The message schedule: W[t] of W[t - 16], W[t - 15], W[t - 7] and W[t - 2].
          __m128i newest = words[lane][(four + 3) % 4];
          __m128i seven = _mm_alignr_epi8(newest, words[lane][(four + 2) % 4], 4);
          __m128i next = _mm_sha256msg1_epu32(oldest, words[lane][(four + 1) % 4]);
          oldest = _mm_sha256msg2_epu32(_mm_add_epi32(next, seven), newest);
        }
      }
    }
    for (size_t lane = 0; lane < kLanes; lane++) {
      abef[lane] = _mm_add_epi32(abef[lane], abef_before[lane]);
      cdgh[lane] = _mm_add_epi32(cdgh[lane], cdgh_before[lane]);
    }
  }
  for (size_t lane = 0; lane < kLanes; lane++) {
    auto* state = reinterpret_cast<__m128i*>(lanes[lane].state);
    __m128i feba = _mm_shuffle_epi32(abef[lane], 0x1B);
    __m128i dchg = _mm_shuffle_epi32(cdgh[lane], 0xB1);
    _mm_storeu_si128(state, _mm_blend_epi16(feba, dchg, 0xF0));
    _mm_storeu_si128(state + 1, _mm_alignr_epi8(dchg, feba, 8));
  }
}

class InstructionSha256 final : public Digest {
 public:
  void update(std::span<const uint8_t> bytes) override {
    length_ += bytes.size();
    if (held_ > 0) {
      size_t taken = std::min(bytes.size(), kBlock - held_);
      hold(bytes.first(taken));
      bytes = bytes.subspan(taken);
      if (held_ < kBlock) return;
      compress<1>({Lane{state_.data(), block_.data()}}, 1);
      held_ = 0;
    }
    size_t blocks = bytes.size() / kBlock;
    if (blocks > 0) compress<1>({Lane{state_.data(), bytes.data()}}, blocks);
    hold(bytes.subspan(blocks * kBlock));
  }

  void update_two(std::span<const uint8_t> bytes, Digest& other_digest,
                  std::span<const uint8_t> other_bytes) override {
    auto* other = dynamic_cast<InstructionSha256*>(&other_digest);
    size_t blocks = std::min(bytes.size(), other_bytes.size()) / kBlock;
    if (other != nullptr && held_ == 0 && other->held_ == 0 && blocks > 0) {
      compress<2>(
          {Lane{state_.data(), bytes.data()}, Lane{other->state_.data(), other_bytes.data()}},
          blocks);
      length_ += blocks * kBlock;
      other->length_ += blocks * kBlock;
      bytes = bytes.subspan(blocks * kBlock);
      other_bytes = other_bytes.subspan(blocks * kBlock);
    }
    update(bytes);
    other_digest.update(other_bytes);
  }

  Sha256 finish() override {
    // A one bit, zeros, and the length in bits, big-endian, at the end of a block.
    std::array<uint8_t, 2 * kBlock> padding = {0x80};
    size_t zeros_end = (held_ < kBlock - 8 ? kBlock : 2 * kBlock) - held_ - 8;
    uint64_t bits = __builtin_bswap64(length_ * 8);
    std::memcpy(padding.data() + zeros_end, &bits, sizeof bits);
    update({padding.data(), zeros_end + sizeof bits});
    Sha256 digest;
    for (size_t i = 0; i < state_.size(); i++) {
      uint32_t word = __builtin_bswap32(state_[i]);
      std::memcpy(digest.data() + i * sizeof word, &word, sizeof word);
    }
    return digest;
  }

 private:
  void hold(std::span<const uint8_t> bytes) {
    if (!bytes.empty()) std::memcpy(block_.data() + held_, bytes.data(), bytes.size());
    held_ += bytes.size();
  }

  std::array<uint32_t, 8> state_ = kInitial;
  std::array<uint8_t, kBlock> block_;
  size_t held_ = 0;
  uint64_t length_ = 0;
};

}  // namespace

bool has_sha_instructions() {
  // CPUID.(7,0):EBX[29] is SHA, CPUID.1:ECX[19] is SSE4.1.
  static const bool present = [] {
    unsigned eax, ebx, ecx, edx;
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || (ecx & 1u << 19) == 0) return false;
    return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 && (ebx & 1u << 29) != 0;
  }();
  return present;
}

std::unique_ptr<Digest> make_instruction_sha256() { return std::make_unique<InstructionSha256>(); }

}  // namespace kvmsnap
