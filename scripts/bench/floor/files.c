// Guest memory to a file, and machines whose memory is that file, mapped. The page cache is warm.
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "abi.h"
#include "measure.h"

static void scratch_path(const struct bench* b, char path[4096]) {
  snprintf(path, 4096, "%s/floor.%d.tmp", b->directory, (int)getpid());
}

static void write_image(const struct bench* b, int fd) {
  enum { kWrite = 8 << 20 };
  const size_t size = b->image.size;
  for (size_t done = 0; done < size;) {
    const size_t left = size - done;
    ssize_t n = write(fd, b->image_memory + done, left < kWrite ? left : kWrite);
    if (n <= 0) die("write");
    done += n;
  }
}

enum save { kOverwrite, kNew, kDurable };

// Over an old file, to a new one, or to a new one until the disk has it. The first is not counted: it
// makes the old file, and memory that was not used for a second may have to be had from the host of a
// virtual machine again (free page reporting), which takes ten times as long as the writing.
static void measure_save(const struct bench* b, enum save how, const char* name) {
  static struct samples save;
  char path[4096];
  scratch_path(b, path);
  const int flags = how == kOverwrite ? O_TRUNC : O_EXCL;
  for (int i = -1; i < b->slow_runs; i++) {
    double start = now_us();
    int fd = open(path, O_CREAT | flags | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0) die(path);
    write_image(b, fd);
    if (how == kDurable && fdatasync(fd)) die("fdatasync");
    if (i >= 0) add_sample(&save, now_us() - start);
    close(fd);
    if (how != kOverwrite) unlink(path);
  }
  if (how == kOverwrite) {
    unlink(path);
    report_fact("save_full_page_cache_MiB_per_s", (b->image.size >> 20) / (median(&save) / 1e6));
  }
  report(kLeast, name, &save);
}

static void measure_restore(const struct bench* b, struct template file, enum machine_kind kind) {
  static struct samples ready, first_exit;
  for (int i = 0; i < b->runs; i++) {
    double start = now_us();
    struct machine x = create_machine(file, kNone, kind);
    set_state(&x, 10);
    add_sample(&ready, now_us() - start);
    run_to(&x, GUEST_PORT_READY);
    add_sample(&first_exit, now_us() - start);
    destroy_machine(&x);
  }
  report(kind, "restore_file_ready", &ready);
  report(kind, "restore_file_first_exit", &first_exit);
}

// The file that restores map. Written only, so that it costs nobody a measurement.
static struct template write_file(const struct bench* b) {
  char path[4096];
  scratch_path(b, path);
  struct template file = {.fd = open(path, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600),
                          .size = b->image.size};
  unlink(path);
  if (file.fd < 0) die(path);
  write_image(b, file.fd);
  return file;
}

void measure_files(const struct bench* b) {
  struct template file = write_file(b);
  struct machine first = create_machine(file, kNone, kFull);
  destroy_machine(&first);
  for (enum machine_kind kind = kLeast; kind <= kFull; kind++) measure_restore(b, file, kind);
  close(file.fd);
}

void measure_save_page_cache(const struct bench* b) {
  measure_save(b, kOverwrite, "save_full_page_cache");
  measure_save(b, kNew, "save_new_file");
}
void measure_save_durable(const struct bench* b) { measure_save(b, kDurable, "save_full_durable"); }
