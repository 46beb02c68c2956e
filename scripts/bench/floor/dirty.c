// Dirty tracking and reset: what KVM's logs cost while a guest writes, and to read.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "abi.h"
#include "measure.h"

// Pages are numbered by where they are in memory, whichever slot they are in.
struct log {
  enum dirty_mode mode;
  uint64_t *pages, *bitmap;
};

static struct log open_log(enum dirty_mode mode, size_t memory_size) {
  const size_t pages = memory_size / kPage;
  struct log log = {
      .mode = mode,
      .pages = malloc(sizeof *log.pages * (pages + kRingEntries)),
      .bitmap = calloc(pages / 64 + 1, sizeof *log.bitmap),
  };
  if (!log.pages || !log.bitmap) die("malloc");
  return log;
}

static void close_log(struct log* log) {
  free(log->pages);
  free(log->bitmap);
}

static size_t harvest_ring(struct machine* x, uint64_t* pages) {
  size_t count = 0;
  for (;; x->ring_head++) {
    struct kvm_dirty_gfn* entry = &x->ring[x->ring_head % kRingEntries];
    // The kernel publishes an entry by its flags, and takes it back by them.
    if (!(__atomic_load_n(&entry->flags, __ATOMIC_ACQUIRE) & KVM_DIRTY_GFN_F_DIRTY)) break;
    pages[count++] = slot_of(x->memory_size, entry->slot).offset / kPage + entry->offset;
    __atomic_store_n(&entry->flags, KVM_DIRTY_GFN_F_RESET, __ATOMIC_RELEASE);
  }
  if (ioctl(x->vm, KVM_RESET_DIRTY_RINGS, 0) < 0) die("KVM_RESET_DIRTY_RINGS");
  return count;
}

static size_t harvest_slot(struct machine* x, struct log* log, int slot, size_t count) {
  const struct slot where = slot_of(x->memory_size, slot);
  const size_t first = where.offset / kPage, pages = where.size / kPage;
  struct kvm_dirty_log get = {.slot = slot, .dirty_bitmap = log->bitmap};
  if (ioctl(x->vm, KVM_GET_DIRTY_LOG, &get)) die("KVM_GET_DIRTY_LOG");
  for (size_t word = 0; word < pages / 64; word++)
    for (uint64_t bits = log->bitmap[word]; bits; bits &= bits - 1)
      log->pages[count++] = first + word * 64 + __builtin_ctzll(bits);
  if (log->mode == kManual) {
    struct kvm_clear_dirty_log clear = {
        .slot = slot, .num_pages = pages, .dirty_bitmap = log->bitmap};
    if (ioctl(x->vm, KVM_CLEAR_DIRTY_LOG, &clear)) die("KVM_CLEAR_DIRTY_LOG");
  }
  return count;
}

// Collects the pages written since the last call and arms their tracking again.
static size_t harvest(struct machine* x, struct log* log) {
  if (log->mode == kRing) return harvest_ring(x, log->pages);
  size_t count = 0;
  for (int i = 0; i < kSlots; i++)
    if (slot_of(x->memory_size, i).size) count = harvest_slot(x, log, i, count);
  return count;
}

static void measure_mode(const struct bench* b, enum dirty_mode mode, const char* name) {
  enum { kPages = 4000 };
  static struct samples run, collect;
  struct log log = open_log(mode, b->image.size);
  struct machine x = create_machine(b->image, mode, kLeast);
  set_state(&x, kPages);
  run_to(&x, GUEST_PORT_READY);
  run_to(&x, GUEST_PORT_PASS);
  if (mode != kNone) harvest(&x, &log);
  for (int i = 0; i < b->runs; i++) {
    double start = now_us();
    run_to(&x, GUEST_PORT_PASS);
    add_sample(&run, now_us() - start);
    if (mode == kNone) continue;
    start = now_us();
    size_t found = harvest(&x, &log);
    add_sample(&collect, now_us() - start);
    if (found < kPages) {
      fprintf(stderr, "floor: dirty %s found only %zu of %d pages\n", name, found, kPages);
      exit(1);
    }
  }
  char key[64];
  snprintf(key, sizeof key, "dirty_%s_run_4000_pages", name);
  report(kLeast, key, &run);
  snprintf(key, sizeof key, "dirty_%s_harvest_4000_pages", name);
  if (mode != kNone) report(kLeast, key, &collect);
  destroy_machine(&x);
  close_log(&log);
}

void measure_dirty(const struct bench* b) {
  measure_mode(b, kNone, "none");
  measure_mode(b, kBitmap, "bitmap");
  measure_mode(b, kManual, "manual");
  measure_mode(b, kRing, "ring");
}

static void measure_reset_of(const struct bench* b, enum machine_kind kind, int pages) {
  static struct samples samples;
  struct log log = open_log(kRing, b->image.size);
  struct machine x = create_machine(b->image, kRing, kind);
  set_state(&x, pages);
  run_to(&x, GUEST_PORT_READY);
  run_to(&x, GUEST_PORT_PASS);
  harvest(&x, &log);
  for (int i = 0; i < b->runs; i++) {
    run_to(&x, GUEST_PORT_PASS);
    double start = now_us();
    size_t count = harvest(&x, &log);
    for (size_t k = 0; k < count; k++) {
      const size_t at = log.pages[k] * kPage;
      memcpy(x.memory + at, b->image_memory + at, kPage);
    }
    set_state(&x, pages);
    add_sample(&samples, now_us() - start);
    run_to(&x, GUEST_PORT_READY);
  }
  char key[64];
  snprintf(key, sizeof key, "reset_%d_pages", pages);
  report(kind, key, &samples);
  destroy_machine(&x);
  close_log(&log);
}

void measure_reset(const struct bench* b) {
  for (enum machine_kind kind = kLeast; kind <= kFull; kind++)
    for (int pages = 10; pages <= 1000; pages *= 10) measure_reset_of(b, kind, pages);
}
