// What the BIOS data area says of a triple fault.
#include "vmm/reset_request.h"

#include <string_view>

#include "test/catch.h"

namespace kvmsnap {

namespace {

void write(GuestMemory& memory, uint64_t gpa, std::string_view bytes) {
  memory.write(gpa, {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()});
}

}  // namespace

TEST_CASE("a reset was asked for when the flag that firmware left says cold or warm boot") {
  using namespace std::string_view_literals;
  GuestMemory memory;
  memory.add({.slot = 0, .gpa = 0, .size = 0x10000}, nullptr);
  write(memory, 0x472, "\xFF\xFF"sv);
  write(memory, 0x4F0, "KVMSNAP1");
  CHECK_FALSE(asked_for_reset(memory));
  write(memory, 0x472, "\x00\x00"sv);
  CHECK(asked_for_reset(memory));
  write(memory, 0x472, "\x34\x12"sv);
  CHECK(asked_for_reset(memory));
  // Half of each.
  write(memory, 0x472, "\x34\x00"sv);
  CHECK_FALSE(asked_for_reset(memory));
  write(memory, 0x472, "\x00\x12"sv);
  CHECK_FALSE(asked_for_reset(memory));
}

TEST_CASE("memory of zeros, as bare guests have it, asks for nothing") {
  GuestMemory memory;
  memory.add({.slot = 0, .gpa = 0, .size = 0x10000}, nullptr);
  CHECK_FALSE(asked_for_reset(memory));
  write(memory, 0x4F0, "KVMSNAP2");
  CHECK_FALSE(asked_for_reset(memory));
}

TEST_CASE("a machine without memory there asks for nothing") {
  GuestMemory memory;
  CHECK_FALSE(asked_for_reset(memory));
  memory.add({.slot = 0, .gpa = 0x10000, .size = 0x10000}, nullptr);
  CHECK_FALSE(asked_for_reset(memory));
}

}  // namespace kvmsnap
