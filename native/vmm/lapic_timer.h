// The LAPIC timer of a vCPU that stands still, in its one-shot and periodic modes.
//
// KVM goes on counting while a vCPU is parked. A timer that fires then is a count inside KVM until
// the next entry, and no ioctl shows it: an expired one-shot whose interrupt is still to come looks
// like one whose interrupt was handled long ago. So it is noted what the timer did when the vCPU
// came to stand, with nothing pending; what it reads later then says whether it has fired since.
#pragma once

#include <chrono>
#include <optional>

#include "kvm/uapi.h"

namespace kvmsnap {

/// Whether the timer counts down (one-shot or periodic mode, running or expired) instead of
/// comparing with the TSC.
bool counts_down(const kvm_lapic_state& lapic);

class StandingTimer {
 public:
  using Clock = std::chrono::steady_clock;

  /// The vCPU has come to stand, and nothing is pending in KVM.
  void note(const kvm_lapic_state& lapic, Clock::time_point now);
  /// The vCPU runs: what was noted is worth nothing.
  void forget() { noted_ = false; }
  bool noted() const { return noted_; }

  /// Makes what KVM_GET_LAPIC gave complete: an interrupt that is pending inside KVM goes into the
  /// IRR, and a one-shot timer that has expired is stopped, since KVM_SET_LAPIC would start it
  /// again and deliver it a second time.
  void complete(kvm_lapic_state& lapic, Clock::time_point now) const;

 private:
  bool fired(const kvm_lapic_state& lapic, Clock::time_point now) const;

  bool noted_ = false;
  /// When it will fire next; none if it had expired or did not run.
  std::optional<Clock::time_point> due_;
};

}  // namespace kvmsnap
