// Getting a vCPU thread out of KVM_RUN. docs/threads.md numbers the races and says why none is
// lost.
#pragma once

#include <pthread.h>
#include <signal.h>

#include "kvm/uapi.h"

namespace kvmsnap {

/// Blocks every signal on the calling thread but the kick, and installs the kick's handler once for
/// the process: a real-time signal that nobody else has a handler for, whose handler does nothing.
void prepare_vcpu_thread();

/// Makes the thread's current or next KVM_RUN return EINTR. The reason must be visible to the
/// thread before this is called.
void kick(pthread_t thread, kvm_run& run);

/// Called by the vCPU thread after EINTR, before it looks for the reason: a kick that comes later
/// sets it again, one that came earlier has its reason visible.
void clear_kick(kvm_run& run);

/// Makes the calling thread's next KVM_RUN return EINTR.
void kick_self(kvm_run& run);

/// Blocks every signal on the calling thread while it lives.
class BlockedSignals {
 public:
  BlockedSignals();
  ~BlockedSignals();
  BlockedSignals(const BlockedSignals&) = delete;
  BlockedSignals& operator=(const BlockedSignals&) = delete;

 private:
  sigset_t before_;
};

/// Leaves a kick pending but blocked on the calling thread while it lives. A KVM_RUN that unblocks
/// signals then goes all the way to the guest's door, doing what KVM does on entry, and returns
/// EINTR without executing an instruction; `immediate_exit` returns before any of that.
class PendingKick {
 public:
  PendingKick();
  ~PendingKick();
  PendingKick(const PendingKick&) = delete;
  PendingKick& operator=(const PendingKick&) = delete;
};

}  // namespace kvmsnap
