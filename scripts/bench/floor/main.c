// The physical limit, measured: what bare ioctls and mmaps cost on this machine, with no library in
// between. Prints one JSON object:
//   { "results": { name: { "p50_us", "p99_us", "n" }, ... }, "memory_MiB": ... }
// and with --samples also "samples_us" in each result, so that several runs can be taken together.
// A benchmark of the product divides its own median by the figure here, taken in the same run, so
// that the ratio holds on any machine.
//
// Two machines are measured: the least that runs (slot, vCPU, CPUID, sregs, regs), and `full_`, one
// with irqchip and PIT whose whole saveable state is set (xsave, xcrs, debugregs, MSRs, LAPIC,
// events, mp_state, irqchip, PIT, clock): compare a machine with its like.
//
// The guest is 64-bit code in ring 3: native on hardware KVM and on PVM hosts alike.
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "measure.h"

static const struct {
  const char* name;
  void (*measure)(const struct bench*);
  int makes_own;  // memory that it measures with: it needs no filled image
} kGroups[] = {
    {"forks", measure_forks, 0},
    {"sizes", measure_sizes, 1},
    {"dirty", measure_dirty, 0},
    {"reset", measure_reset, 0},
    {"files", measure_files, 0},
    {"save", measure_save_page_cache, 0},
    {"durable", measure_save_durable, 0},
    {"freeze", measure_freeze, 1},
    {"freeze-in-place", measure_freeze_in_place, 1},
};
enum { kGroupCount = sizeof kGroups / sizeof *kGroups, kMaxFacts = 8 };

static struct {
  const char* name;
  double value;
} facts[kMaxFacts];
static int fact_count, result_count, with_samples;

double now_us(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

void add_sample(struct samples* s, double us) {
  if (s->count < kMaxSamples) s->us[s->count++] = us;
}

static int ascending(const void* a, const void* b) {
  const double x = *(const double*)a, y = *(const double*)b;
  return (x > y) - (x < y);
}

static double percentile(struct samples* s, int percent) {
  qsort(s->us, s->count, sizeof *s->us, ascending);
  // Nearest rank.
  return s->us[(s->count * percent + 99) / 100 - 1];
}

double median(struct samples* s) { return percentile(s, 50); }

void report(enum machine_kind kind, const char* name, struct samples* s) {
  printf("%s\n    \"%s%s\": { \"p50_us\": %.3f, \"p99_us\": %.3f, \"n\": %d",
         result_count++ ? "," : "", kind == kFull ? "full_" : "", name, median(s),
         percentile(s, 99), s->count);
  if (with_samples) {
    for (int i = 0; i < s->count; i++) printf("%s%.3f", i ? ", " : ", \"samples_us\": [", s->us[i]);
    printf("]");
  }
  printf(" }");
  fflush(stdout);
  s->count = 0;
}

void report_fact(const char* name, double value) {
  if (fact_count == kMaxFacts) abort();
  facts[fact_count].name = name;
  facts[fact_count++].value = value;
}

static void usage(FILE* to) {
  fprintf(to,
          "usage: floor [--memory MiB] [--dir DIR] [--only GROUP[,GROUP...]] [--quick]\n"
          "             [--runs N] [--slow-runs N] [--samples]\n"
          "  --memory  guest memory of all but `sizes`: 32 to 8192 MiB (default 256)\n"
          "  --dir     where scratch files go (default .)\n"
          "  --only    groups to measure:");
  for (int i = 0; i < kGroupCount; i++) fprintf(to, " %s", kGroups[i].name);
  fprintf(to,
          "\n  --quick   fewer samples: --runs 41 --slow-runs 5\n"
          "  --runs, --slow-runs\n"
          "            how many samples of short and of long work: 1 to %d (default 101 and 15)\n"
          "  --samples print every sample too\n",
          kMaxSamples);
}

static int choose_groups(const char* list) {
  int chosen = 0;
  char* names = strdup(list);
  for (char* name = strtok(names, ","); name; name = strtok(NULL, ",")) {
    int i = 0;
    while (i < kGroupCount && strcmp(name, kGroups[i].name)) i++;
    if (i == kGroupCount) {
      fprintf(stderr, "floor: there is no group %s\n", name);
      usage(stderr);
      exit(2);
    }
    chosen |= 1 << i;
  }
  free(names);
  return chosen;
}

int main(int argc, char** argv) {
  static const struct option kOptions[] = {
      {"memory", required_argument, NULL, 'm'},
      {"dir", required_argument, NULL, 'd'},
      {"only", required_argument, NULL, 'o'},
      {"quick", no_argument, NULL, 'q'},
      {"runs", required_argument, NULL, 'r'},
      {"slow-runs", required_argument, NULL, 's'},
      {"samples", no_argument, NULL, 'a'},
      {"help", no_argument, NULL, 'h'},
      {0},
  };
  struct bench b = {.runs = 101, .slow_runs = 15, .directory = "."};
  long memory_mib = 256;
  int groups = 0;
  for (int option; (option = getopt_long(argc, argv, "", kOptions, NULL)) != -1;) {
    if (option == 'm') memory_mib = atol(optarg);
    if (option == 'd') b.directory = optarg;
    if (option == 'o') groups |= choose_groups(optarg);
    if (option == 'q') b.runs = 41, b.slow_runs = 5;
    if (option == 'r') b.runs = atoi(optarg);
    if (option == 's') b.slow_runs = atoi(optarg);
    if (option == 'a') with_samples = 1;
    if (option == 'h') return usage(stdout), 0;
    if (option == '?') return usage(stderr), 2;
  }
  if (b.runs < 1 || b.runs > kMaxSamples || b.slow_runs < 1 || b.slow_runs > kMaxSamples)
    return usage(stderr), 2;
  if (memory_mib < 32 || memory_mib > 8192 || optind != argc) return usage(stderr), 2;

  open_kvm();
  int filled = 0;
  for (int i = 0; i < kGroupCount; i++)
    filled |= (!groups || groups & 1 << i) && !kGroups[i].makes_own;
  b.image = make_template((size_t)memory_mib << 20, filled, &b.image_memory);
  printf("{\n  \"results\": {");
  for (int i = 0; i < kGroupCount; i++)
    if (!groups || groups & 1 << i) kGroups[i].measure(&b);
  printf("\n  }");
  for (int i = 0; i < fact_count; i++) printf(",\n  \"%s\": %.3f", facts[i].name, facts[i].value);
  printf(",\n  \"memory_MiB\": %ld\n}\n", memory_mib);
}
