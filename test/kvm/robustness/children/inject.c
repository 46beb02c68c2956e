// Fails one call of a kind (1: a thread, 2: an ioctl of KVM but KVM_RUN, 3: a memfd) when control[1] counts down to 0.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
static volatile _Atomic int *control;
__attribute__((constructor)) static void begin(void) {
  int fd = open(getenv("INJECT"), O_RDWR | O_CLOEXEC);
  control = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
}
static int fails(int kind) {
  if (!control || control[0] != kind) return 0;
  return atomic_fetch_sub(&control[1], 1) == 1;
}
int pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*f)(void *), void *p) {
  static int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
  if (!real) real = dlsym(RTLD_NEXT, "pthread_create");
  return fails(1) ? EAGAIN : real(t, a, f, p);
}
int ioctl(int fd, unsigned long request, ...) {
  static int (*real)(int, unsigned long, void *);
  if (!real) real = dlsym(RTLD_NEXT, "ioctl");
  va_list l; va_start(l, request); void *arg = va_arg(l, void *); va_end(l);
  if (((request >> 8) & 0xff) == 0xae && request != 0xae80 && fails(2)) { errno = ENOMEM; return -1; }
  return real(fd, request, arg);
}
int memfd_create(const char *n, unsigned f) {
  static int (*real)(const char *, unsigned);
  if (!real) real = dlsym(RTLD_NEXT, "memfd_create");
  if (fails(3)) { errno = EMFILE; return -1; }
  return real(n, f);
}
