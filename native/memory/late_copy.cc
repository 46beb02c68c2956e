#include "memory/late_copy.h"

#include <linux/userfaultfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "kvm/error.h"
#include "memory/file_io.h"
#include "memory/region_spec.h"

namespace kvmsnap {

namespace {

// Between two looks at who waits: some 20 µs.
constexpr uint64_t kChunk = 64 << 10;

// A call protects a run, at some 2 µs; a page is copied in 1 µs.
constexpr uint64_t kLeastPagesPerRun = 4;
constexpr uint64_t kLeastBytes = 1 << 20;

}  // namespace

bool LateCopy::worthwhile(const std::vector<HostRun>& runs) {
  uint64_t bytes = 0;
  for (const HostRun& run : runs) bytes += run.end - run.start;
  return bytes >= kLeastBytes && bytes / kPageSize >= runs.size() * kLeastPagesPerRun;
}

LateCopy::LateCopy(uint8_t* host, uint64_t size, std::vector<HostRun> runs,
                   std::shared_ptr<const BackingFile> layer)
    : memory_(host),
      host_(reinterpret_cast<uintptr_t>(host)),
      size_(size),
      runs_(std::move(runs)),
      layer_(std::move(layer)),
      userfault_(WriteFault::Sync),
      copied_(size / kPageSize),
      released_(size / kPageSize) {
  userfault_.watch(host, size);
  for (const HostRun& run : runs_) userfault_.protect(run.start, run.end - run.start, true);
}

// Closing the descriptor wakes those in what is still watched. Others wait where something else has
// been mapped since.
LateCopy::~LateCopy() { userfault_.wake(memory_, size_); }

void LateCopy::run() {
  for (const HostRun& run : runs_) {
    for (uint64_t at = run.start; at < run.end;) {
      serve();
      uint64_t end = std::min(run.end, at + kChunk);
      copy(at, end);
      at = end;
    }
  }
}

// Pages that were released hold something else by now.
void LateCopy::copy(uint64_t start, uint64_t end) {
  uint64_t first = start;
  for (uint64_t at = start; at <= end; at += kPageSize) {
    if (at < end && !copied_[(at - host_) / kPageSize]) continue;
    if (at > first) write_all(layer_->fd(), bytes(first), at - first, first - host_);
    first = at + kPageSize;
  }
  std::fill(copied_.begin() + static_cast<ptrdiff_t>((start - host_) / kPageSize),
            copied_.begin() + static_cast<ptrdiff_t>((end - host_) / kPageSize), true);
}

void LateCopy::serve() {
  std::array<uffd_msg, 16> messages;
  for (;;) {
    ssize_t got = ::read(userfault_.fd(), messages.data(), sizeof messages);
    if (got <= 0) return;
    for (size_t i = 0; i < static_cast<size_t>(got) / sizeof messages[0]; i++) {
      if (messages[i].event != UFFD_EVENT_PAGEFAULT) continue;
      copy_page_of(messages[i].arg.pagefault.address & ~(kPageSize - 1));
    }
  }
}

void LateCopy::copy_page_of(uint64_t address) {
  uint64_t page = (address - host_) / kPageSize;
  auto run =
      std::upper_bound(runs_.begin(), runs_.end(), address,
                       [](uint64_t value, const HostRun& other) { return value < other.end; });
  if (run != runs_.end() && run->start <= address) {
    if (!copied_[page]) copy(address, address + kPageSize);
    released_[page] = true;
  }
  userfault_.protect(address, kPageSize, false);
}

std::vector<HostRun> LateCopy::untouched() const {
  std::vector<HostRun> result;
  for (const HostRun& run : runs_) {
    for (uint64_t at = run.start; at < run.end; at += kPageSize) {
      if (!released_[(at - host_) / kPageSize]) append_run(result, at, at + kPageSize);
    }
  }
  return result;
}

}  // namespace kvmsnap
