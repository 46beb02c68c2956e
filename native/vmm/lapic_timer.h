// The LAPIC timer of a vCPU that stands still, in its one-shot and periodic modes.
//
// KVM computes the current count from the clock, makes an expiry known in a host timer's callback
// (a count that no ioctl shows), and moves that into the IRR when the vCPU is entered. So a count
// of 0 may mean an interrupt that was handled long ago, one that KVM holds, and one whose callback
// is still to come. What the timer does is found out once when a vCPU comes to stand
// (VcpuRegisters::note_timer); from then on what was noted is the state, whatever KVM's own timer
// does meanwhile. IA32_TSC_DEADLINE needs none of that: it keeps its value until KVM injects.
#pragma once

#include <chrono>
#include <optional>

#include "kvm/uapi.h"

namespace kvmsnap {

/// What KVM_GET_LAPIC says of the timer.
class TimerView {
 public:
  explicit TimerView(const kvm_lapic_state& lapic);

  /// In one-shot or periodic mode and started: running, or expired.
  bool counts_down() const { return (lvt_ & kDeadline) == 0 && initial_ != 0; }
  bool one_shot() const { return (lvt_ & kMode) == 0; }
  uint32_t initial() const { return initial_; }
  uint32_t count() const { return count_; }
  /// Its interrupt is in the IRR, where one more makes no difference.
  bool requested() const { return requested_; }
  /// Unmasked, with a vector that the LAPIC delivers.
  bool interrupts() const { return (lvt_ & kMasked) == 0 && vector() >= kFirstVector; }
  /// How long one count of the whole takes: of the periodic timer, its period.
  std::chrono::nanoseconds whole() const;
  /// Whether KVM can hold no interrupt of it that is not seen here: a one-shot that still runs has
  /// not expired since it was started.
  bool says_all() const;

  uint8_t vector() const { return static_cast<uint8_t>(lvt_); }

 private:
  // LVT timer: vector 7:0, mask 16, mode 18:17 (0 one-shot, 1 periodic, 2 TSC deadline).
  static constexpr uint32_t kMasked = 1 << 16;
  static constexpr uint32_t kMode = 3 << 17;
  static constexpr uint32_t kDeadline = 2 << 17;
  // Vectors below are exceptions: the LAPIC does not deliver them.
  static constexpr uint8_t kFirstVector = 16;

  uint32_t lvt_;
  uint32_t initial_;
  uint32_t count_;
  uint32_t divide_;
  bool requested_;
};

/// Whether a periodic timer has ticked by the second look, given that KVM has moved what it held at
/// the first into the IRR. The two are less than a period apart.
bool has_ticked(const TimerView& first, const TimerView& second);

class StandingTimer {
 public:
  /// The vCPU stands, and its timer is as that look says; `ticked`: with its interrupt due.
  void note(const TimerView& timer, bool ticked);
  /// It was loaded: the timer starts from there.
  void note_loaded(const TimerView& timer);
  /// The vCPU runs, or its LAPIC was set: what was noted is worth nothing.
  void forget() { noted_ = false; }
  bool noted() const { return noted_; }
  /// Whether it counts down from the noted count, so that time changes it.
  bool counts_down() const { return noted_ && registers_.has_value(); }

  /// Makes what KVM_GET_LAPIC gave what was noted. A one-shot timer that had expired is stopped,
  /// since KVM_SET_LAPIC would start it again and deliver its interrupt a second time.
  void complete(kvm_lapic_state& lapic) const;

 private:
  struct Registers {
    uint32_t initial;
    uint32_t count;
    /// Vector to be requested; 0: none.
    uint8_t request;
  };

  bool noted_ = false;
  /// None for a timer that is off or compares with the TSC.
  std::optional<Registers> registers_;
};

}  // namespace kvmsnap
