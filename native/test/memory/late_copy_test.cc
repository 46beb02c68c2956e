// Memory that is frozen while it is written: its image is that of the instant.
#include <cstring>
#include <random>
#include <thread>

#include "memory/guest_memory.h"
#include "memory/userfault.h"
#include "test/catch.h"
#include "test/memory/bytes.h"

namespace kvmsnap {

namespace {

constexpr uint64_t kSize = 8 << 20;
using Bytes = std::vector<uint8_t>;

bool possible() {
  try {
    Userfault userfault(WriteFault::Sync);
    return true;
  } catch (const Error& why) {
    WARN("there are no late copies here: " << why.what());
    return false;
  }
}

void fill(GuestMemory& memory, Bytes& model, uint8_t value) {
  std::fill(model.begin(), model.end(), value);
  memory.write(0, model);
}

Bytes read_all(const auto& source) {
  Bytes bytes(kSize);
  source.read(0, bytes);
  return bytes;
}

}  // namespace

TEST_CASE("late copies: what others write meanwhile is not in the image, and not lost") {
  if (!possible()) return;
  GuestMemory memory;
  memory.add({.slot = 0, .gpa = 0, .size = kSize}, nullptr);
  Bytes model(kSize);
  fill(memory, model, 1);
  memory.freeze();
  std::mt19937_64 random(3);
  for (uint8_t round = 2; round < 22; round++) {
    fill(memory, model, round);
    FrozenMemory frozen = memory.freeze(true);
    REQUIRE(frozen.late != nullptr);
    REQUIRE(memory.freezing());
    Bytes after = model;
    std::thread writer([&] {
      for (int i = 0; i < 400; i++) {
        uint64_t at = random() % (kSize / 8) * 8;
        uint64_t value = random();
        memory.write(at, {reinterpret_cast<uint8_t*>(&value), sizeof value});
        std::memcpy(after.data() + at, &value, sizeof value);
      }
    });
    frozen.late->finish();
    writer.join();
    REQUIRE(!memory.freezing());
    REQUIRE(read_all(*frozen.image) == model);
    REQUIRE(read_all(memory) == after);
    model = after;
    // What is done in the middle of it waits for it.
    if (round % 3 == 0) {
      memory.reset(frozen.image);
      REQUIRE(read_all(memory) == read_all(*frozen.image));
      model = read_all(memory);
    }
  }
}

TEST_CASE("late copies: who maps memory anew finishes them first") {
  if (!possible()) return;
  GuestMemory memory;
  memory.add({.slot = 0, .gpa = 0, .size = kSize}, nullptr);
  Bytes first(kSize), second(kSize);
  fill(memory, first, 7);
  auto image = memory.freeze().image;
  for (int round = 0; round < 10; round++) {
    fill(memory, second, static_cast<uint8_t>(10 + round));
    FrozenMemory frozen = memory.freeze(true);
    REQUIRE(frozen.late != nullptr);
    switch (round % 3) {
      case 0:
        memory.reset(image);
        REQUIRE(read_all(memory) == first);
        break;
      case 1:
        memory.map_anew(image);
        REQUIRE(read_all(memory) == first);
        break;
      default:
        REQUIRE(read_all(*memory.freeze().image) == second);
    }
    frozen.late->finish();
    REQUIRE(read_all(*frozen.image) == second);
  }
}

}  // namespace kvmsnap
