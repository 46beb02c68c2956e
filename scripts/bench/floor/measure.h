// Samples, their report, and the groups of measurements. Times are microseconds.
#pragma once

#include "machine.h"

enum { kMaxSamples = 501 };

struct samples {
  int count;
  double us[kMaxSamples];
};

// What every group needs to know.
struct bench {
  struct template image;  // filled guest memory, a memfd
  uint8_t* image_memory;  // the same, mapped
  int runs, slow_runs;    // samples to take: of work below a millisecond or so, and of longer work
  const char* directory;  // for scratch files
};

double now_us(void);
void add_sample(struct samples* s, double us);
double median(struct samples* s);
// Adds `name` (with `full_` before it for a full machine) to the results, and empties the samples.
void report(enum machine_kind kind, const char* name, struct samples* s);
// Adds a number beside the results.
void report_fact(const char* name, double value);

void measure_forks(const struct bench* b);
void measure_sizes(const struct bench* b);
void measure_dirty(const struct bench* b);
void measure_reset(const struct bench* b);
void measure_files(const struct bench* b);
void measure_save_page_cache(const struct bench* b);
void measure_save_durable(const struct bench* b);
void measure_freeze(const struct bench* b);
void measure_freeze_in_place(const struct bench* b);
