// Threads that take no signals: those are for vCPUs (vmm/kick.h) and for Node.
#pragma once

#include <pthread.h>
#include <signal.h>

#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include "kvm/error.h"

namespace kvmsnap {

/// Throws ERR_SYSTEM, with `what` the thread is for, and nothing else.
template <typename Work>
std::thread quiet_thread(const char* what, Work work) {
  sigset_t all, before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    std::thread thread(std::move(work));
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    return thread;
  } catch (const std::system_error& error) {
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    throw Error("ERR_SYSTEM", std::string("no thread for ") + what + ": " + error.what(),
                "pthread_create", error.code().value());
  } catch (...) {
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    throw current_error();
  }
}

}  // namespace kvmsnap
