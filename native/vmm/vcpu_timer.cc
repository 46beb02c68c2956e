// Finding out what the LAPIC timer of a vCPU that has come to stand does: see lapic_timer.h.
#include <errno.h>
#include <sched.h>
#include <time.h>

#include <algorithm>
#include <vector>

#include "kvm/error.h"
#include "vmm/kick.h"
#include "vmm/vcpu_state.h"

namespace kvmsnap {

namespace {

using Clock = std::chrono::steady_clock;

// How often the two looks at a periodic timer are taken again when a whole period, of KVM 200 µs at
// least, went by between them.
constexpr unsigned kMostLooks = 10;

// On how many CPUs an overdue callback is waited for, some 10 to 60 µs each. On a machine with more
// that time is itself far beyond what a timer's interrupt is late by.
constexpr unsigned kMostCpus = 16;

// The CPUs that the thread may run on, the present one first.
std::vector<int> own_cpus() {
  int present = ::sched_getcpu();
  std::vector<int> cpus = {present};
  cpu_set_t allowed;
  // It fails on a machine with more CPUs than the set has room for.
  if (::sched_getaffinity(0, sizeof allowed, &allowed) != 0) return cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE && cpus.size() < kMostCpus; cpu++) {
    if (cpu != present && CPU_ISSET(cpu, &allowed)) cpus.push_back(cpu);
  }
  return cpus;
}

// Keeps the calling thread on one CPU after the other while it lives.
class CpuTour {
 public:
  CpuTour() { known_ = ::sched_getaffinity(0, sizeof allowed_, &allowed_) == 0; }
  ~CpuTour() {
    if (known_) ::sched_setaffinity(0, sizeof allowed_, &allowed_);
  }
  CpuTour(const CpuTour&) = delete;
  CpuTour& operator=(const CpuTour&) = delete;

  void visit(int cpu) const {
    if (!known_) return;
    cpu_set_t only;
    CPU_ZERO(&only);
    CPU_SET(cpu, &only);
    ::sched_setaffinity(0, sizeof only, &only);
  }

 private:
  bool known_;
  cpu_set_t allowed_ = {};
};

// A CPU runs the timers of a clock in the order in which they are due (kernel/time/hrtimer.c,
// __hrtimer_run_queues). So when one that is started now has woken this thread, those of this CPU
// that were due before have had their callbacks.
void wait_for_overdue_timers() {
  timespec shortest = {.tv_sec = 0, .tv_nsec = 1};
  ::clock_nanosleep(CLOCK_MONOTONIC, 0, &shortest, nullptr);
}

}  // namespace

// KVM moves timer interrupts that it counted into the IRR when it has looked whether the vCPU can
// go on. The vCPU is entered with a signal pending, and as one that halts: so KVM gets to that, and
// neither enters the guest nor emulates an instruction of it (as KVM on PVM would). On VMX, which
// counts with its preemption timer while in the guest, it is also what makes KVM look at the clock.
void VcpuRegisters::push_timer_interrupt() {
  const kvm_mp_state before = fd_.mp_state();
  bool runnable = before.mp_state == KVM_MP_STATE_RUNNABLE;
  if (runnable) fd_.set_mp_state({.mp_state = KVM_MP_STATE_HALTED});
  int outcome;
  {
    PendingKick pending;
    fd_.unblock_signals_in_guest(true);
    outcome = enter();
    fd_.unblock_signals_in_guest(false);
  }
  if (runnable) fd_.set_mp_state(before);
  if (outcome != EINTR && outcome != EAGAIN) {
    throw Error("ERR_IOCTL", "KVM_RUN of a vCPU that halts did not heed a signal", "KVM_RUN",
                outcome);
  }
}

bool VcpuRegisters::note_timer_at_sight() {
  if (!irqchip_ || timer_.noted()) return true;
  TimerView timer(fd_.lapic());
  if (!timer.says_all()) return false;
  timer_.note(timer, false);
  return true;
}

void VcpuRegisters::note_timer() {
  if (!irqchip_ || timer_.noted()) return;
  auto before = Clock::now();
  TimerView timer(fd_.lapic());
  if (timer.says_all()) return timer_.note(timer, false);
  if (timer.one_shot()) return note_expired();
  for (unsigned looks = 1;; looks++) {
    push_timer_interrupt();
    TimerView then(fd_.lapic());
    bool near = Clock::now() - before < timer.whole();
    if (then.requested() || near || looks == kMostLooks) {
      return timer_.note(then, !near || has_ticked(timer, then));
    }
    before = Clock::now();
    timer = TimerView(fd_.lapic());
  }
}

// A one-shot that has expired, without a request: its interrupt was taken, maybe long ago, or KVM
// holds it, or its callback is overdue. The first two are told apart by pushing. For the third each
// CPU that may have the host's timer is waited for: that where the vCPU last ran or was set.
void VcpuRegisters::note_expired() {
  push_timer_interrupt();
  TimerView timer(fd_.lapic());
  if (!timer.requested()) {
    CpuTour tour;
    for (int cpu : own_cpus()) {
      tour.visit(cpu);
      wait_for_overdue_timers();
      push_timer_interrupt();
      timer = TimerView(fd_.lapic());
      if (timer.requested()) break;
    }
  }
  timer_.note(timer, false);
}

}  // namespace kvmsnap
