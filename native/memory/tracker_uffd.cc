#include "memory/tracker_uffd.h"

#include <linux/userfaultfd.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <utility>

#include "memory/quiet_thread.h"

namespace kvmsnap {

namespace {

// Protecting a page that is protected does no harm, and a call more costs more than the walk over
// so many pages.
constexpr uint64_t kGap = 8;

// Calls `visit(first, end)` for runs of set bits, joined over small gaps.
template <typename Visit>
void for_each_span(const std::vector<uint64_t>& bitmap, uint64_t pages, Visit visit) {
  uint64_t first = 0, end = 0;
  for (uint64_t page = 0; page < pages; page++) {
    if (bitmap[page / 64] == 0) {
      page |= 63;
      continue;
    }
    if ((bitmap[page / 64] >> page % 64 & 1) == 0) continue;
    if (end > first && page > end + kGap) {
      visit(first, end);
      first = page;
    } else if (end == first) {
      first = page;
    }
    end = page + 1;
  }
  if (end > first) visit(first, end);
}

}  // namespace

UffdTracker::UffdTracker(GuestMemory& memory)
    : memory_(memory),
      userfault_(WriteFault::Sync),
      wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      noted_(clean_slots(memory)) {
  if (!wake_) throw_system("eventfd");
  for (const DirtySlot& slot : noted_) {
    hosts_.push_back(reinterpret_cast<uintptr_t>(memory_.host(slot.slot)));
  }
  // The thread before the protection: the VMM may write at any time, and would wait for ever.
  thread_ = quiet_thread("userfaultfd", [this] { serve(); });
  try {
    watch_all();
  } catch (...) {
    forget_all();
    end_thread();
    throw;
  }
}

// Closing the descriptor, which comes next, takes all protection away and wakes who waits.
UffdTracker::~UffdTracker() { end_thread(); }

void UffdTracker::end_thread() {
  if (!thread_.joinable()) return;
  uint64_t one = 1;
  // It cannot fail: the counter is nowhere near its limit.
  if (::write(wake_.get(), &one, sizeof one) != sizeof one) return;
  thread_.join();
}

void UffdTracker::watch_all() {
  for (size_t i = 0; i < noted_.size(); i++) {
    uint64_t size = noted_[i].pages * kPageSize;
    userfault_.watch(memory_.host(noted_[i].slot), size);
    userfault_.protect(hosts_[i], size, true);
  }
}

void UffdTracker::forget_all() {
  for (const DirtySlot& slot : noted_) {
    try {
      userfault_.forget(memory_.host(slot.slot), slot.pages * kPageSize);
    } catch (const Error&) {
      // Closing the descriptor does it.
    }
  }
}

void UffdTracker::serve() {
  std::array<uffd_msg, 16> messages;
  std::array<pollfd, 2> watched = {{{.fd = userfault_.fd(), .events = POLLIN, .revents = 0},
                                    {.fd = wake_.get(), .events = POLLIN, .revents = 0}}};
  for (;;) {
    if (::poll(watched.data(), watched.size(), -1) < 0 && errno != EINTR) return;
    if (watched[1].revents != 0) return;
    ssize_t got = ::read(userfault_.fd(), messages.data(), sizeof messages);
    if (got <= 0) continue;
    auto started = std::chrono::steady_clock::now();
    std::lock_guard lock(mutex_);
    for (size_t i = 0; i < static_cast<size_t>(got) / sizeof messages[0]; i++) {
      if (messages[i].event != UFFD_EVENT_PAGEFAULT) continue;
      note(messages[i].arg.pagefault.address & ~(kPageSize - 1));
    }
    lost_ += std::chrono::steady_clock::now() - started;
  }
}

void UffdTracker::note(uint64_t address) {
  for (size_t i = 0; i < noted_.size(); i++) {
    if (address < hosts_[i] || address >= hosts_[i] + noted_[i].pages * kPageSize) continue;
    noted_[i].mark((address - hosts_[i]) / kPageSize);
  }
  try {
    userfault_.protect(address, kPageSize, false);
  } catch (const Error& error) {
    // Nobody may wait for ever: without tracking the guest at least goes on.
    if (error.error_number() == ENOENT) return;
    failure_ = error;
    forget_all();
  }
}

void UffdTracker::harvest(std::vector<DirtySlot>& slots) {
  std::lock_guard lock(mutex_);
  if (failure_) throw Error(*failure_);
  join(slots, noted_);
  for (size_t i = 0; i < noted_.size(); i++) {
    for_each_span(noted_[i].bitmap, noted_[i].pages, [&](uint64_t first, uint64_t end) {
      userfault_.protect(hosts_[i] + first * kPageSize, (end - first) * kPageSize, true);
    });
    std::fill(noted_[i].bitmap.begin(), noted_[i].bitmap.end(), 0);
  }
}

void UffdTracker::stop() {
  forget_all();
  end_thread();
}

void UffdTracker::before_remap(std::vector<DirtySlot>& slots) {
  forget_all();
  std::lock_guard lock(mutex_);
  if (failure_) throw Error(*failure_);
  join(slots, noted_);
  for (DirtySlot& slot : noted_) std::fill(slot.bitmap.begin(), slot.bitmap.end(), 0);
}

void UffdTracker::after_remap() { watch_all(); }

std::chrono::nanoseconds UffdTracker::take_lost() {
  std::lock_guard lock(mutex_);
  return std::exchange(lost_, {});
}

}  // namespace kvmsnap
