// Brings guest memory in while the machine runs: who touches a page that is not there waits for a
// thread of this, which asks a source for it. Others may fetch pages before they are touched.
//
// Memory is the region's memfd. When all that has content is there, nothing is watched any more and
// it is memory like any other. When a source fails, what was watched is made inaccessible before
// anybody that waits goes on: no vCPU goes on with bytes that are not the guest's.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <span>
#include <thread>
#include <unordered_map>
#include <vector>

#include "memory/latencies.h"
#include "memory/page_map.h"
#include "memory/page_source.h"
#include "memory/userfault.h"

namespace kvmsnap {

struct PagingOptions {
  std::shared_ptr<PageSource> source;
  /// Bytes brought in for one fault: a block aligned to that, or what of it is still missing.
  uint64_t fault_bytes = 64 << 10;
  /// Fetched from the start, in this order.
  std::vector<GpaRange> prefetch;
};

struct PagingFacts {
  /// Touches of missing pages. Two that wait for the same block are two.
  uint64_t faults = 0;
  // 4 KiB pages with content, by what brought them.
  uint64_t faulted = 0;
  uint64_t prefetched = 0;
  /// By `fetch`.
  uint64_t fetched = 0;
  uint64_t left = 0;
  /// From when a fault was heard of until its page was there.
  std::chrono::nanoseconds p50{0};
  std::chrono::nanoseconds p99{0};
  /// Pages still come on demand.
  bool active = false;
};

/// Called on the pager's thread.
class PagerEvents {
 public:
  virtual ~PagerEvents() = default;
  /// The source failed; memory becomes inaccessible when this returns.
  virtual void paging_failed(const Error& error) = 0;
  /// Nobody waits for a page any more. `readable`: nothing is missing.
  virtual void paging_ended(bool readable) = 0;
};

/// Thread-safe.
class Pager final : private PageReceiver {
 public:
  /// A region whose memory is there, empty.
  struct Memory {
    GpaRange range;
    uint8_t* host;
  };

  /// `content`: what the source has; all else is zeros. Throws ERR_SYSTEM without userfaultfd.
  Pager(std::vector<Memory> memory, std::span<const GpaRange> content, PagingOptions options,
        PagerEvents& events);
  ~Pager() override;

  /// Whether pages are still to come.
  bool active() const;
  PagingFacts facts() const;
  /// Blocks in the order in which they were first touched.
  std::vector<GpaRange> touched() const;

  /// Brings in what is missing of `ranges`, and with all memory waits until nothing is watched any
  /// more. Throws ERR_ABORTED once `cancelled`, or why there are no pages to be had.
  void fetch(std::span<const GpaRange> ranges, const std::atomic<bool>& cancelled);
  void fetch_all(const std::atomic<bool>& cancelled);
  /// For a host access: brings the pages in, or throws. ERR_STATE when that would take the answer
  /// of the thread that asks for it.
  void require(uint64_t gpa, uint64_t length);

  /// Where a source that answers later sends its answers.
  PageReceiver& receiver() { return *this; }

  /// Ends it, soon: who waits for a page is turned away. Harmless when it has ended.
  void abort(const Error& why);
  /// The same, and waits for its threads. Memory may be unmapped from here on.
  void stop(const Error& why);
  /// After a failure, once no vCPU runs: what did arrive can be read again.
  void reopen();

 private:
  void answer(uint32_t id, std::span<const uint8_t> bytes) override;
  void refuse(uint32_t id, const Error& error) override;

  enum class Purpose : uint8_t { Fault, Prefetch, Fetch };
  using Clock = std::chrono::steady_clock;
  struct Request {
    GpaRange range;
    Purpose purpose;
    /// When each fault that waits for it was heard of.
    std::vector<Clock::time_point> faults;
    bool answered = false;
  };

  void place(uint32_t id, const GpaRange& range, std::span<const uint8_t> bytes);
  void serve();
  void serve_messages();
  void fault(uint64_t address);
  void finish();
  void end(std::optional<Error> why, bool tell);
  /// `mutex_` is held: registers a request for what was claimed.
  uint32_t open(const GpaRange& claimed, Purpose purpose);
  /// Without the lock.
  void ask(uint32_t id, const GpaRange& range);
  void bring_in(std::span<const GpaRange> ranges, Purpose purpose,
                const std::atomic<bool>& cancelled);
  void wait(std::unique_lock<std::mutex>& lock, const std::atomic<bool>& cancelled);
  uint8_t* host(uint64_t gpa) const;

  const std::vector<Memory> memory_;
  const uint64_t fault_bytes_;
  const std::vector<GpaRange> prefetch_;
  /// Null once it is stopped: a source keeps files open. Asked through a copy of the pointer.
  std::shared_ptr<PageSource> source_;
  const bool answers_later_;
  PagerEvents& events_;
  Userfault userfault_;
  UniqueFd wake_;
  /// What is watched.
  std::vector<Memory> watched_;

  /// Held shared to put pages in place, alone to end that.
  std::shared_mutex gate_;
  bool closed_ = false;

  /// Never held while anything waits, but for `changed_`.
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  PageMap map_;
  std::unordered_map<uint32_t, Request> requests_;
  uint32_t next_id_ = 1;
  std::vector<GpaRange> touched_;
  PagingFacts facts_;
  Latencies latencies_;
  /// Ending was asked for; why, unless everything arrived; whether the owner is to hear of it.
  bool ending_ = false;
  std::optional<Error> failure_;
  bool tell_ = false;
  bool ended_ = false;
  bool reopened_ = false;
  /// What had arrived is gone, too.
  bool lost_ = false;

  std::mutex stopping_;
  std::atomic<bool> never_ = false;
  std::thread fetcher_;
  std::thread thread_;
};

}  // namespace kvmsnap
