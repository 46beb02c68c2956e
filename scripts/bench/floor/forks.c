// New machines on shared memory: made from nothing (cold), and by moving one that exists (pooled).
#include <stdio.h>

#include "abi.h"
#include "measure.h"

static void measure_cold(struct template image, enum machine_kind kind, int runs,
                         const char* suffix) {
  static struct samples ready, first_exit, close;
  for (int i = 0; i < runs; i++) {
    double start = now_us();
    struct machine x = create_machine(image, kNone, kind);
    set_state(&x, 10);
    add_sample(&ready, now_us() - start);
    run_to(&x, GUEST_PORT_READY);
    add_sample(&first_exit, now_us() - start);
    start = now_us();
    destroy_machine(&x);
    add_sample(&close, now_us() - start);
  }
  char name[64];
  snprintf(name, sizeof name, "cold_fork_ready%s", suffix);
  report(kind, name, &ready);
  snprintf(name, sizeof name, "cold_fork_first_exit%s", suffix);
  report(kind, name, &first_exit);
  snprintf(name, sizeof name, "close%s", suffix);
  report(kind, name, &close);
}

static void measure_pooled(const struct bench* b, enum machine_kind kind) {
  static struct samples ready, first_exit, roundtrip;
  struct machine x = create_machine(b->image, kNone, kind);
  for (int i = 0; i < b->runs; i++) {
    set_state(&x, 10);
    run_to(&x, GUEST_PORT_READY);
    run_to(&x, GUEST_PORT_PASS);
    double start = now_us();
    map_private(b->image, x.memory);
    set_state(&x, 10);
    add_sample(&ready, now_us() - start);
    run_to(&x, GUEST_PORT_READY);
    add_sample(&first_exit, now_us() - start);
  }
  for (int i = 0; i < b->runs; i++) {
    double start = now_us();
    run_to(&x, GUEST_PORT_PASS);
    add_sample(&roundtrip, now_us() - start);
  }
  destroy_machine(&x);
  report(kind, "pooled_fork_ready", &ready);
  report(kind, "pooled_fork_first_exit", &first_exit);
  report(kind, "exit_roundtrip_10_page_pass", &roundtrip);
}

void measure_forks(const struct bench* b) {
  // The first full machine of a process gives the state that the others are set to: not in a
  // sample.
  struct machine first = create_machine(b->image, kNone, kFull);
  destroy_machine(&first);
  for (enum machine_kind kind = kLeast; kind <= kFull; kind++) {
    measure_cold(b->image, kind, b->runs, "");
    measure_pooled(b, kind);
  }
}

// How a fork depends on the size of its memory, little of which has content.
void measure_sizes(const struct bench* b) {
  static const int kSizesMiB[] = {64, 512, 2048};
  for (int i = 0; i < 3; i++) {
    uint8_t* memory;
    char suffix[32];
    struct template sparse = make_template((size_t)kSizesMiB[i] << 20, 0, &memory);
    snprintf(suffix, sizeof suffix, "_%d_MiB", kSizesMiB[i]);
    measure_cold(sparse, kLeast, b->runs, suffix);
    free_template(sparse, memory);
  }
}
