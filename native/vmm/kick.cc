#include "vmm/kick.h"

#include <atomic>
#include <mutex>

#include "kvm/error.h"

namespace kvmsnap {

namespace {

int kick_signal = 0;

void ignore_signal(int) {}

void install_handler() {
  // From the top: applications count up from SIGRTMIN.
  for (int signal = SIGRTMAX; signal >= SIGRTMIN; signal--) {
    struct sigaction current;
    if (::sigaction(signal, nullptr, &current) != 0 || current.sa_handler != SIG_DFL) continue;
    struct sigaction action = {};
    action.sa_handler = ignore_signal;
    // No SA_RESTART: KVM_RUN has to return.
    if (::sigaction(signal, &action, nullptr) != 0) throw_system("sigaction");
    kick_signal = signal;
    return;
  }
  throw Error("ERR_SYSTEM", "every real-time signal has a handler: one is needed to stop vCPUs");
}

void set_immediate_exit(kvm_run& run, __u8 value) {
  std::atomic_ref<__u8>(run.immediate_exit).store(value, std::memory_order_seq_cst);
}

}  // namespace

void prepare_vcpu_thread() {
  static std::once_flag once;
  std::call_once(once, install_handler);
  sigset_t blocked;
  ::sigfillset(&blocked);
  ::sigdelset(&blocked, kick_signal);
  ::pthread_sigmask(SIG_SETMASK, &blocked, nullptr);
}

void kick(pthread_t thread, kvm_run& run) {
  set_immediate_exit(run, 1);
  ::pthread_kill(thread, kick_signal);
}

void clear_kick(kvm_run& run) { set_immediate_exit(run, 0); }

void kick_self(kvm_run& run) { set_immediate_exit(run, 1); }

BlockedSignals::BlockedSignals() {
  sigset_t all;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before_);
}

BlockedSignals::~BlockedSignals() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

PendingKick::PendingKick() {
  sigset_t kicks;
  ::sigemptyset(&kicks);
  ::sigaddset(&kicks, kick_signal);
  ::pthread_sigmask(SIG_BLOCK, &kicks, nullptr);
  ::pthread_kill(::pthread_self(), kick_signal);
}

PendingKick::~PendingKick() {
  sigset_t kicks;
  ::sigemptyset(&kicks);
  ::sigaddset(&kicks, kick_signal);
  // Real-time signals queue: one at least is there, others may have come.
  timespec now = {};
  while (::sigtimedwait(&kicks, nullptr, &now) > 0) {
  }
  ::pthread_sigmask(SIG_UNBLOCK, &kicks, nullptr);
}

}  // namespace kvmsnap
