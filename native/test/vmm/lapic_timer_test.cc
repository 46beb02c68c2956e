// What a look at a standing vCPU's LAPIC says of its timer. No KVM: the registers are made up.
#include "vmm/lapic_timer.h"

#include <cstring>

#include "test/catch.h"

namespace kvmsnap {

namespace {

using namespace std::chrono_literals;

constexpr uint32_t kVector = 0x41, kMasked = 1 << 16, kPeriodic = 1 << 17, kDeadline = 2 << 17;
constexpr size_t kIrrWord = 0x200 + 0x10 * (kVector / 32);

struct Timer {
  uint32_t lvt = kVector;
  uint32_t initial = 1000;
  uint32_t count = 0;
  uint32_t irr = 0;
};

void put(kvm_lapic_state& lapic, size_t offset, uint32_t value) {
  std::memcpy(lapic.regs + offset, &value, sizeof value);
}

uint32_t at(const kvm_lapic_state& lapic, size_t offset) {
  uint32_t value;
  std::memcpy(&value, lapic.regs + offset, sizeof value);
  return value;
}

kvm_lapic_state lapic_of(const Timer& timer) {
  kvm_lapic_state lapic = {};
  put(lapic, 0x320, timer.lvt);
  put(lapic, 0x380, timer.initial);
  put(lapic, 0x390, timer.count);
  put(lapic, 0x3E0, 0xB);
  put(lapic, kIrrWord, timer.irr);
  return lapic;
}

TimerView view(const Timer& timer) { return TimerView(lapic_of(timer)); }

constexpr uint32_t kRequest = 1u << kVector % 32;

// What a save would write of a LAPIC that has gone on since.
kvm_lapic_state saved(const StandingTimer& timer, const Timer& later) {
  kvm_lapic_state lapic = lapic_of(later);
  timer.complete(lapic);
  return lapic;
}

}  // namespace

TEST_CASE("a look says all of a timer that is off, masked, requested or has not expired") {
  CHECK(view({.initial = 0}).says_all());
  CHECK(view({.lvt = kVector | kDeadline}).says_all());
  CHECK(view({.lvt = kVector | kMasked}).says_all());
  CHECK(view({.lvt = kVector | kPeriodic | kMasked}).says_all());
  CHECK(view({.lvt = 15}).says_all());
  CHECK(view({.irr = kRequest}).says_all());
  CHECK(view({.lvt = kVector | kPeriodic, .irr = kRequest}).says_all());
  CHECK(view({.count = 1}).says_all());
}

TEST_CASE("an expired one-shot and a periodic timer may have an interrupt that no look shows") {
  CHECK_FALSE(view({}).says_all());
  CHECK_FALSE(view({.lvt = kVector | kPeriodic, .count = 500}).says_all());
  // Another vector's request says nothing.
  CHECK_FALSE(view({.irr = ~kRequest}).says_all());
}

TEST_CASE("a count is as long as the divisor says") {
  kvm_lapic_state lapic = lapic_of({});
  CHECK(TimerView(lapic).whole() == 1000ns);
  put(lapic, 0x3E0, 0);
  CHECK(TimerView(lapic).whole() == 2000ns);
  put(lapic, 0x3E0, 0xA);
  CHECK(TimerView(lapic).whole() == 128000ns);
}

TEST_CASE("a periodic timer has ticked when its count is out, or has grown, or KVM says so") {
  auto looks = [](uint32_t first, uint32_t second, uint32_t irr = 0) {
    return has_ticked(view({.lvt = kVector | kPeriodic, .count = first}),
                      view({.lvt = kVector | kPeriodic, .count = second, .irr = irr}));
  };
  CHECK_FALSE(looks(500, 400));
  CHECK_FALSE(looks(500, 500));
  CHECK(looks(500, 501));
  CHECK(looks(0, 400));
  CHECK(looks(500, 0));
  CHECK(looks(500, 400, kRequest));
}

TEST_CASE("a save has the timer as it was noted, whatever became of it since") {
  StandingTimer timer;
  CHECK_FALSE(timer.noted());
  timer.note(view({.count = 600}), false);
  CHECK(timer.noted());
  CHECK(timer.counts_down());
  kvm_lapic_state lapic = saved(timer, {.count = 0});
  CHECK(at(lapic, 0x380) == 1000);
  CHECK(at(lapic, 0x390) == 600);
  CHECK(at(lapic, kIrrWord) == 0);
}

TEST_CASE("a one-shot that had expired is saved as stopped") {
  StandingTimer timer;
  timer.note(view({.irr = kRequest}), false);
  kvm_lapic_state lapic = saved(timer, {.irr = kRequest});
  CHECK(at(lapic, 0x380) == 0);
  CHECK(at(lapic, kIrrWord) == kRequest);
}

TEST_CASE("a tick that is due is requested beside what else has come, of a masked timer none") {
  StandingTimer timer;
  timer.note(view({.lvt = kVector | kPeriodic, .count = 900}), true);
  kvm_lapic_state lapic = saved(timer, {.lvt = kVector | kPeriodic, .count = 1, .irr = 1});
  CHECK(at(lapic, 0x390) == 900);
  CHECK(at(lapic, kIrrWord) == (kRequest | 1));
  timer.note(view({.lvt = kVector | kPeriodic | kMasked, .count = 900}), true);
  CHECK(at(saved(timer, {}), kIrrWord) == 0);
}

TEST_CASE("what was loaded is saved as it was: an expired one-shot that fires at once") {
  StandingTimer timer;
  timer.note_loaded(view({}));
  CHECK(at(saved(timer, {}), 0x380) == 1000);
}

TEST_CASE("a timer that was forgotten, or compares with the TSC, is left as KVM has it") {
  StandingTimer timer;
  timer.note(view({.count = 600}), false);
  timer.forget();
  CHECK(at(saved(timer, {.count = 5}), 0x390) == 5);
  timer.note(view({.lvt = kVector | kDeadline}), false);
  CHECK(timer.noted());
  CHECK_FALSE(timer.counts_down());
  CHECK(at(saved(timer, {.count = 7}), 0x390) == 7);
}

}  // namespace kvmsnap
