// Dirty tracking by userfaultfd write protection: at the first write to a page its writer waits
// until a thread of ours has noted the page and let it be written.
#pragma once

#include <mutex>
#include <optional>
#include <thread>

#include "memory/tracker.h"
#include "memory/userfault.h"

namespace kvmsnap {

class UffdTracker final : public Tracker {
 public:
  explicit UffdTracker(GuestMemory& memory);
  ~UffdTracker() override;

  void harvest(std::vector<DirtySlot>& slots) override;
  void stop() override;
  void before_remap(std::vector<DirtySlot>& slots) override;
  void after_remap() override;
  /// What the faults took from the message until the page could be written.
  std::chrono::nanoseconds take_lost() override;

 private:
  void watch_all();
  void forget_all();
  void end_thread();
  void serve();
  void note(uint64_t address);

  GuestMemory& memory_;
  Userfault userfault_;
  /// Host addresses of the slots; they do not move.
  std::vector<uint64_t> hosts_;
  UniqueFd wake_;
  std::thread thread_;

  /// Noting a page and letting it be written is one step against a harvest, as is taking a page and
  /// protecting it: else a page taken between note and release would be writable and forgotten.
  std::mutex mutex_;
  std::vector<DirtySlot> noted_;
  std::chrono::nanoseconds lost_{0};
  std::optional<Error> failure_;
};

}  // namespace kvmsnap
