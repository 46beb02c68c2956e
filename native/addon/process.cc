// What a process that hosts a machine, and every process that it starts, gives up.
#include "addon/process.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <memory>

#include "addon/environment.h"
#include "kvm/error.h"

namespace kvmsnap {

namespace {

constexpr unsigned kFirst = 3;
// CLOSE_RANGE_CLOEXEC, which headers older than Linux 5.11 lack.
constexpr unsigned kCloseOnExec = 1U << 2;

// Before Linux 5.11.
void close_each_on_exec() {
  std::unique_ptr<DIR, int (*)(DIR*)> directory(::opendir("/proc/self/fd"), ::closedir);
  if (directory == nullptr) throw_system("opendir");
  while (const dirent* entry = ::readdir(directory.get())) {
    int fd = std::atoi(entry->d_name);
    // One that was closed meanwhile is no matter.
    if (fd >= static_cast<int>(kFirst)) static_cast<void>(::fcntl(fd, F_SETFD, FD_CLOEXEC));
  }
}

// Whoever started this process may have left descriptors open in it. Node passes them on.
void close_on_exec() {
  if (::syscall(SYS_close_range, kFirst, ~0U, kCloseOnExec) < 0) close_each_on_exec();
}

// A limit of 1 byte, where 0 lets the kernel start a program that is handed the dump
// (core_pattern(5), "Piping core dumps to a program"; fs/coredump.c).
void forbid_core_files() {
  rlimit limit;
  if (::getrlimit(RLIMIT_CORE, &limit) < 0) throw_system("getrlimit");
  limit.rlim_max = std::min<rlim_t>(limit.rlim_max, 1);
  limit.rlim_cur = limit.rlim_max;
  if (::setrlimit(RLIMIT_CORE, &limit) < 0) throw_system("setrlimit");
}

// Of the calling thread, and of all threads and processes that it starts from now on.
void forbid_new_privileges() {
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) throw_system("prctl");
}

}  // namespace

void seal_process(const Napi::CallbackInfo& info) {
  guard(info.Env(), [] {
    close_on_exec();
    forbid_core_files();
    forbid_new_privileges();
  });
}

}  // namespace kvmsnap
