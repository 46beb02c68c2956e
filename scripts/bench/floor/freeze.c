// How long a running machine has to stand still for its memory to become an immutable image: out of
// KVM_RUN by a signal, all state read, memory mapped MAP_PRIVATE over itself, and in again. The old
// mapping is moved aside first and unmapped later; `in_place`: it is mapped over. The machine has
// irqchip and PIT. Measured from before the signal to before the guest is entered again.
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>

#include "abi.h"
#include "measure.h"

struct runner {
  struct machine machine;
  struct template memory;
  struct full_state state;
  void* aside;     // where the old mapping is moved to, NULL: it is torn down where it is
  uint64_t later;  // pages to write in each pass once all was written once
  int passes;      // since the thread started, counted by it
  int request;     // kKeepRunning, kFreeze, kStop: set by the other thread
  // When the thread was out of the guest, had its state, and was about to enter it again (0 until
  // then; stored last).
  double out_us, saved_us, resumed_us;
};
enum { kKeepRunning, kFreeze, kStop };
// Exits, the first of which says that the guest is ready.
enum { kPassesToPopulate = 1, kPassesToSettle = 3 };

static void on_kick(int signal) { (void)signal; }

static void* run_guest(void* argument) {
  struct runner* r = argument;
  struct machine* x = &r->machine;
  for (;;) {
    const int result = ioctl(x->vcpu, KVM_RUN, 0);
    const int request = __atomic_load_n(&r->request, __ATOMIC_ACQUIRE);
    if (result < 0 && errno != EINTR) die("KVM_RUN");
    if (request == kStop) return NULL;
    if (result == 0) {
      if (x->run->io.port == GUEST_PORT_PASS && r->passes == kPassesToPopulate) {
        struct kvm_regs regs;
        if (ioctl(x->vcpu, KVM_GET_REGS, &regs) < 0) die("KVM_GET_REGS");
        regs.r15 = r->later;
        if (ioctl(x->vcpu, KVM_SET_REGS, &regs) < 0) die("KVM_SET_REGS");
      }
      __atomic_add_fetch(&r->passes, 1, __ATOMIC_RELEASE);
      continue;
    }
    if (request != kFreeze) continue;
    r->out_us = now_us();
    x->run->immediate_exit = 0;
    get_full_state(x, &r->state);
    r->saved_us = now_us();
    // Moving the page tables aside is cheaper than tearing them down, which can then be done beside
    // the running guest. MREMAP_DONTUNMAP: at no time may another thread's mmap take the range.
    if (r->aside &&
        mremap(x->memory, x->memory_size, x->memory_size,
               MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, r->aside) == MAP_FAILED)
      die("mremap");
    map_private(r->memory, x->memory);
    __atomic_store_n(&r->request, kKeepRunning, __ATOMIC_RELAXED);
    const double now = now_us();
    __atomic_store(&r->resumed_us, &now, __ATOMIC_RELEASE);
  }
}

static void pause_briefly(void) { nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL); }

// Both marks the request and makes KVM_RUN return: a kick before the thread is in KVM_RUN is kept
// by immediate_exit, one inside it is the signal's.
static void kick(struct runner* r, pthread_t thread, int request) {
  __atomic_store_n(&r->request, request, __ATOMIC_RELEASE);
  r->machine.run->immediate_exit = 1;
  pthread_kill(thread, SIGUSR1);
}

static void report_part(const char* part, const char* guest, struct samples* samples) {
  char name[64];
  snprintf(name, sizeof name, "freeze_%s_%s", part, guest);
  report(kLeast, name, samples);
}

// `pages`: how many the guest has written; `later`: how many it writes over and over.
static void measure_pause(const struct bench* b, uint64_t pages, uint64_t later, int moved,
                          const char* guest) {
  static struct samples pause, out, state, remap, discard;
  static struct runner r;
  uint8_t* memory;
  for (int i = 0; i < b->slow_runs; i++) {
    r = (struct runner){.memory = make_template(b->image.size, 0, &memory), .later = later};
    r.machine = create_machine(r.memory, kNone, kFull);
    // As a machine that was never frozen: it writes the memfd itself.
    if (mmap(r.machine.memory, b->image.size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
             r.memory.fd, 0) == MAP_FAILED)
      die("mmap shared");
    set_state(&r.machine, pages);
    if (moved) {
      r.aside =
          mmap(NULL, b->image.size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (r.aside == MAP_FAILED) die("mmap aside");
    }
    pthread_t thread;
    if ((errno = pthread_create(&thread, NULL, run_guest, &r))) die("pthread_create");
    while (__atomic_load_n(&r.passes, __ATOMIC_ACQUIRE) < kPassesToSettle) pause_briefly();

    double start = now_us(), resumed = 0;
    kick(&r, thread, kFreeze);
    while (__atomic_load(&r.resumed_us, &resumed, __ATOMIC_ACQUIRE), resumed == 0) pause_briefly();
    add_sample(&pause, resumed - start);
    add_sample(&out, r.out_us - start);
    add_sample(&state, r.saved_us - r.out_us);
    add_sample(&remap, resumed - r.saved_us);

    if (moved) {
      start = now_us();
      munmap(r.aside, b->image.size);
      add_sample(&discard, now_us() - start);
    }
    kick(&r, thread, kStop);
    pthread_join(thread, NULL);
    destroy_machine(&r.machine);
    free_template(r.memory, memory);
  }
  report_part("pause", guest, &pause);
  report_part("kick", guest, &out);
  report_part("get_state", guest, &state);
  report_part("remap", guest, &remap);
  if (moved) report_part("discard", guest, &discard);
}

static uint64_t all_pages(const struct bench* b) { return (b->image.size - GUEST_PAGES) / kPage; }

static void accept_kicks(void) {
  struct sigaction action = {.sa_handler = on_kick};
  if (sigaction(SIGUSR1, &action, NULL)) die("sigaction");
}

// Nothing populated but ten pages that are written; all populated, and ten or all of it written.
void measure_freeze(const struct bench* b) {
  accept_kicks();
  measure_pause(b, 10, 10, 1, "idle");
  measure_pause(b, all_pages(b), 10, 1, "populated_idle");
  measure_pause(b, all_pages(b), all_pages(b), 1, "populated");
}

void measure_freeze_in_place(const struct bench* b) {
  accept_kicks();
  measure_pause(b, 10, 10, 0, "in_place_idle");
  measure_pause(b, all_pages(b), all_pages(b), 0, "in_place_populated");
}
