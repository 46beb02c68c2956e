#include "vmm/reset_request.h"

#include <array>
#include <cstdint>
#include <cstring>

#include "kvm/error.h"

namespace kvmsnap {

namespace {

constexpr uint64_t kResetFlagAt = 0x472;
constexpr uint16_t kColdBoot = 0;
constexpr uint16_t kWarmBoot = 0x1234;
// In the same page, so that a page that the guest has just written is all that is looked at.
constexpr uint64_t kMarkAt = 0x4F0;
constexpr std::array<uint8_t, 8> kMark = {'K', 'V', 'M', 'S', 'N', 'A', 'P', '1'};

}  // namespace

bool asked_for_reset(const GuestMemory& memory) {
  std::array<uint8_t, kMark.size()> mark{};
  std::array<uint8_t, 2> bytes{};
  try {
    memory.read(kMarkAt, mark);
    memory.read(kResetFlagAt, bytes);
  } catch (const Error&) {
    return false;
  }
  uint16_t flag = 0;
  std::memcpy(&flag, bytes.data(), sizeof flag);
  return mark == kMark && (flag == kColdBoot || flag == kWarmBoot);
}

}  // namespace kvmsnap
