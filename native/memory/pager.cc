#include "memory/pager.h"

#include <linux/userfaultfd.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <utility>

#include "kvm/mapping.h"
#include "memory/quiet_thread.h"

namespace kvmsnap {

namespace {

// One request of a fetch, and how many of them are open at once where answers come later.
constexpr uint64_t kFetchBytes = 1 << 20;
constexpr size_t kMostOpen = 8;

// How soon a fetch hears that it was cancelled.
constexpr std::chrono::milliseconds kCancelDelay(10);

// Beyond so many ranges with content a region is watched whole: each costs a mapping of the
// process's 65530.
constexpr size_t kMostWatched = 512;

std::vector<GpaRange> ranges_of(std::span<const Pager::Memory> memory) {
  std::vector<GpaRange> ranges;
  for (const Pager::Memory& part : memory) ranges.push_back(part.range);
  return ranges;
}

// Content that is close together as one range: what lies between is zeros and is asked for, which
// costs less than many mappings do.
std::vector<GpaRange> joined_content(const GpaRange& region, std::span<const GpaRange> content) {
  std::vector<GpaRange> joined;
  for (const GpaRange& range : content) {
    if (range.gpa < region.gpa || range.gpa >= region.end()) continue;
    if (!joined.empty() && range.gpa - joined.back().end() < kGranule) {
      joined.back().size = range.end() - joined.back().gpa;
    } else {
      joined.push_back(range);
    }
  }
  if (joined.size() > kMostWatched) return {region};
  return joined;
}

}  // namespace

Pager::Pager(std::vector<Memory> memory, std::span<const GpaRange> content, PagingOptions options,
             PagerEvents& events)
    : memory_(std::move(memory)),
      fault_bytes_(options.fault_bytes),
      prefetch_(std::move(options.prefetch)),
      source_(std::move(options.source)),
      answers_later_(source_->answers_later()),
      events_(events),
      userfault_(MissingFault{}),
      wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      map_(ranges_of(memory_), content) {
  if (!wake_) throw_system("eventfd");
  for (const Memory& region : memory_) {
    for (const GpaRange& range : joined_content(region.range, content)) {
      watched_.push_back({range, region.host + (range.gpa - region.range.gpa)});
    }
  }
  // Nobody touches memory yet: closing the descriptor undoes it, should there be no thread.
  for (const Memory& part : watched_) userfault_.watch_missing(part.host, part.range.size);
  bool nothing_to_come = map_.left() == 0;
  thread_ = quiet_thread("userfaultfd", [this] { serve(); });
  try {
    if (nothing_to_come) end(std::nullopt, true);
    if (!prefetch_.empty()) {
      fetcher_ = quiet_thread("prefetching", [this] {
        try {
          bring_in(prefetch_, Purpose::Prefetch, never_);
        } catch (...) {
          // Whoever needs the pages hears of it.
        }
      });
    }
  } catch (const Error& error) {
    stop(error);
    throw;
  }
}

Pager::~Pager() { stop(Error("ERR_CLOSED", "the machine is gone")); }

bool Pager::active() const {
  std::lock_guard lock(mutex_);
  return !ended_;
}

PagingFacts Pager::facts() const {
  std::lock_guard lock(mutex_);
  PagingFacts facts = facts_;
  facts.left = map_.left();
  facts.p50 = latencies_.percentile(0.5);
  facts.p99 = latencies_.percentile(0.99);
  facts.active = !ended_;
  return facts;
}

std::vector<GpaRange> Pager::touched() const {
  std::lock_guard lock(mutex_);
  return touched_;
}

uint8_t* Pager::host(uint64_t gpa) const {
  for (const Memory& region : memory_) {
    if (gpa >= region.range.gpa && gpa < region.range.end()) {
      return region.host + (gpa - region.range.gpa);
    }
  }
  return nullptr;
}

// The thread that faults wait for.

void Pager::serve() {
  try {
    serve_messages();
  } catch (const std::exception& error) {
    // Nobody would hear those who wait: they are turned away.
    end(Error("ERR_PAGE_SOURCE", std::string("the pager failed: ") + error.what()), true);
  }
  finish();
}

void Pager::serve_messages() {
  std::array<uffd_msg, 16> messages;
  std::array<pollfd, 2> watched = {{{.fd = userfault_.fd(), .events = POLLIN, .revents = 0},
                                    {.fd = wake_.get(), .events = POLLIN, .revents = 0}}};
  for (;;) {
    if (::poll(watched.data(), watched.size(), -1) < 0 && errno != EINTR) throw_system("poll");
    if (watched[1].revents != 0) return;
    ssize_t got = ::read(userfault_.fd(), messages.data(), sizeof messages);
    if (got < 0 && errno != EAGAIN && errno != EINTR) throw_system("read");
    for (ssize_t at = 0; at < got; at += static_cast<ssize_t>(sizeof messages[0])) {
      const uffd_msg& message = messages[static_cast<size_t>(at) / sizeof messages[0]];
      if (message.event == UFFD_EVENT_PAGEFAULT) fault(message.arg.pagefault.address);
    }
  }
}

void Pager::fault(uint64_t address) {
  auto heard = Clock::now();
  auto region = std::find_if(memory_.begin(), memory_.end(), [&](const Memory& part) {
    uint64_t base = reinterpret_cast<uintptr_t>(part.host);
    return address >= base && address < base + part.range.size;
  });
  if (region == memory_.end()) return;
  uint64_t gpa = region->range.gpa +
                 (address - reinterpret_cast<uintptr_t>(region->host)) / kPageSize * kPageSize;
  GpaRange gap;
  GpaRange claimed;
  uint32_t id = 0;
  {
    std::lock_guard lock(mutex_);
    if (ending_) return;
    switch (map_.state(gpa)) {
      case PageMap::State::Absent:
        facts_.faults++;
        claimed = map_.claim_around(gpa, fault_bytes_);
        id = open(claimed, Purpose::Fault);
        requests_.at(id).faults.push_back(heard);
        append_range(touched_, claimed);
        break;
      case PageMap::State::Asked:
        facts_.faults++;
        for (auto& [other, request] : requests_) {
          if (gpa >= request.range.gpa && gpa < request.range.end()) {
            request.faults.push_back(heard);
          }
        }
        break;
      case PageMap::State::Here:
        gap = map_.rest_of_gap(gpa, fault_bytes_);
        break;
    }
  }
  if (claimed.size > 0) ask(id, claimed);
  // Zeros; or a page that came while the message was on its way, whose waiter is woken.
  if (gap.size > 0) userfault_.zero(host(gap.gpa), gap.size);
}

void Pager::finish() {
  std::optional<Error> failure;
  bool tell = false;
  {
    std::lock_guard lock(mutex_);
    failure = failure_;
    tell = tell_;
  }
  // Before anybody goes on: what vCPUs then run into is not the reason.
  if (failure && tell) events_.paging_failed(*failure);
  {
    std::unique_lock gate(gate_);
    closed_ = true;
    for (const Memory& part : watched_) {
      // Who waits finds no access, and gets EFAULT.
      if (failure && ::mprotect(part.host, part.range.size, PROT_NONE) < 0) {
        lost_ = true;
        static_cast<void>(map_over(part.host, part.range.size, PROT_NONE,
                                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1));
      }
      try {
        userfault_.forget(part.host, part.range.size);
      } catch (const Error&) {
        // Closing the descriptor does it, too, when no child process has it between fork and exec.
      }
    }
    userfault_.close();
  }
  {
    std::lock_guard lock(mutex_);
    ended_ = true;
    requests_.clear();
  }
  changed_.notify_all();
  events_.paging_ended(!failure);
}

// Requests and answers.

uint32_t Pager::open(const GpaRange& claimed, Purpose purpose) {
  uint32_t id = next_id_++;
  requests_.emplace(id, Request{.range = claimed, .purpose = purpose, .faults = {}});
  return id;
}

void Pager::ask(uint32_t id, const GpaRange& range) {
  std::shared_ptr<PageSource> source;
  {
    std::lock_guard lock(mutex_);
    source = source_;
  }
  // It has been stopped, and whoever waits is turned away.
  if (source == nullptr) return;
  try {
    source->request(id, range, *this);
  } catch (...) {
    refuse(id, current_error());
  }
}

void Pager::answer(uint32_t id, std::span<const uint8_t> bytes) {
  GpaRange range;
  {
    std::lock_guard lock(mutex_);
    auto found = requests_.find(id);
    if (ending_ || found == requests_.end() || found->second.answered) return;
    range = found->second.range;
    found->second.answered = bytes.size() == range.size;
  }
  if (bytes.size() != range.size) {
    return refuse(id,
                  Error("ERR_PAGE_SOURCE", "it gave " + std::to_string(bytes.size()) +
                                               " bytes instead of " + std::to_string(range.size)));
  }
  try {
    place(id, range, bytes);
  } catch (...) {
    end(current_error(), true);
  }
}

void Pager::place(uint32_t id, const GpaRange& range, std::span<const uint8_t> bytes) {
  {
    std::shared_lock gate(gate_);
    if (closed_) return;
    userfault_.copy(host(range.gpa), bytes.data(), range.size);
  }
  auto now = Clock::now();
  bool complete = false;
  {
    std::lock_guard lock(mutex_);
    map_.arrived(range);
    auto found = requests_.find(id);
    if (found != requests_.end()) {
      for (auto heard : found->second.faults) latencies_.add(now - heard);
      uint64_t pages = range.size / kPageSize;
      switch (found->second.purpose) {
        case Purpose::Fault:
          facts_.faulted += pages;
          break;
        case Purpose::Prefetch:
          facts_.prefetched += pages;
          break;
        case Purpose::Fetch:
          facts_.fetched += pages;
          break;
      }
      requests_.erase(found);
    }
    complete = map_.left() == 0;
  }
  changed_.notify_all();
  if (complete) end(std::nullopt, true);
}

void Pager::refuse(uint32_t id, const Error& error) {
  GpaRange range;
  {
    std::lock_guard lock(mutex_);
    auto found = requests_.find(id);
    if (found == requests_.end()) return;
    range = found->second.range;
  }
  end(Error("ERR_PAGE_SOURCE", "guest memory " + hex(range.gpa) + " + " + hex(range.size) +
                                   " could not be had from its source: " + error.what()),
      true);
}

// Fetching before the touch.

void Pager::wait(std::unique_lock<std::mutex>& lock, const std::atomic<bool>& cancelled) {
  changed_.wait_for(lock, kCancelDelay);
  if (failure_) throw Error(*failure_);
  if (cancelled) throw Error("ERR_ABORTED", "the call was aborted");
}

void Pager::bring_in(std::span<const GpaRange> ranges, Purpose purpose,
                     const std::atomic<bool>& cancelled) {
  std::unique_lock lock(mutex_);
  for (const GpaRange& range : ranges) {
    for (uint64_t at = range.gpa; at < range.end();) {
      if (failure_) throw Error(*failure_);
      if (cancelled) throw Error("ERR_ABORTED", "the call was aborted");
      if (ending_) return;
      while (answers_later_ && requests_.size() >= kMostOpen) {
        wait(lock, cancelled);
      }
      if (ending_) continue;
      GpaRange claimed = map_.claim_first({at, range.end() - at}, kFetchBytes);
      if (claimed.size == 0) break;
      at = claimed.end();
      uint32_t id = open(claimed, purpose);
      lock.unlock();
      ask(id, claimed);
      lock.lock();
    }
  }
  for (const GpaRange& range : ranges) {
    uint64_t at = map_.first_missing(range.gpa, range.end());
    while (at < range.end()) {
      if (failure_) throw Error(*failure_);
      wait(lock, cancelled);
      at = map_.first_missing(at, range.end());
    }
  }
}

void Pager::fetch(std::span<const GpaRange> ranges, const std::atomic<bool>& cancelled) {
  bring_in(ranges, Purpose::Fetch, cancelled);
}

void Pager::fetch_all(const std::atomic<bool>& cancelled) {
  bring_in(ranges_of(memory_), Purpose::Fetch, cancelled);
  std::unique_lock lock(mutex_);
  while (!ended_) wait(lock, cancelled);
  if (failure_) throw Error(*failure_);
}

void Pager::require(uint64_t gpa, uint64_t length) {
  if (length == 0) return;
  uint64_t start = gpa / kPageSize * kPageSize;
  uint64_t end_of = length > UINT64_MAX - gpa ? UINT64_MAX : gpa + length;
  {
    std::lock_guard lock(mutex_);
    bool missing = map_.first_missing(start, end_of) < end_of;
    if (failure_ && (missing || !reopened_)) throw Error(*failure_);
    if (!missing) return;
    if (answers_later_) {
      throw Error("ERR_STATE", "guest memory " + hex(gpa) + " + " + hex(length) +
                                   " has not arrived yet: await pageIn of that range first");
    }
  }
  GpaRange range = {start, end_of - start};
  bring_in({&range, 1}, Purpose::Fetch, never_);
}

// The end.

void Pager::end(std::optional<Error> why, bool tell) {
  {
    std::lock_guard lock(mutex_);
    if (ending_) return;
    ending_ = true;
    failure_ = std::move(why);
    tell_ = tell;
    uint64_t one = 1;
    // It cannot fail: the counter is nowhere near its limit. Under the lock, as `stop` closes it.
    static_cast<void>(!::write(wake_.get(), &one, sizeof one));
  }
  changed_.notify_all();
}

void Pager::abort(const Error& why) { end(why, false); }

void Pager::stop(const Error& why) {
  abort(why);
  std::lock_guard lock(stopping_);
  if (fetcher_.joinable()) fetcher_.join();
  if (thread_.joinable()) thread_.join();
  // Whoever still refers to this object keeps no descriptor. The source goes behind the lock.
  std::shared_ptr<PageSource> source;
  std::lock_guard state(mutex_);
  source.swap(source_);
  wake_ = UniqueFd();
}

void Pager::reopen() {
  std::unique_lock gate(gate_);
  if (lost_) return;
  for (const Memory& part : watched_) {
    if (::mprotect(part.host, part.range.size, PROT_READ | PROT_WRITE) < 0) return;
  }
  std::lock_guard lock(mutex_);
  reopened_ = true;
}

}  // namespace kvmsnap
