// Copies pages away while their owner goes on: they are held as they are until they are copied.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "memory/backing_file.h"
#include "memory/page_scan.h"
#include "memory/userfault.h"

namespace kvmsnap {

/// Private pages of one mapping on their way into a layer. Built while nobody writes; from then on
/// who writes to one of them waits until it is copied (userfaultfd write protection), and then
/// writes. So their owner stands still for the protection, a small part of what the copies take.
class LateCopy {
 public:
  /// Whether protecting `runs` is less work than copying them.
  static bool worthwhile(const std::vector<HostRun>& runs);

  /// `host` and `size`: the mapping, which goes to `layer` at the same offsets. Throws ERR_SYSTEM,
  /// and nothing has changed, when the host has no userfaultfd for it, or another one is at work.
  LateCopy(uint8_t* host, uint64_t size, std::vector<HostRun> runs,
           std::shared_ptr<const BackingFile> layer);
  LateCopy(const LateCopy&) = delete;
  LateCopy& operator=(const LateCopy&) = delete;
  /// Lets everybody go who waits.
  ~LateCopy();

  /// Copies all. On an exception some are not, and nobody is held.
  void run();
  /// Lets those write who wait, if their page is copied; copies it if not.
  void serve();
  const std::vector<HostRun>& runs() const { return runs_; }
  /// After `run`: nobody writes to the layer again.
  void seal() { layer_->seal(); }
  /// After `run`: those that nobody has written since, and that nobody can while this lives.
  std::vector<HostRun> untouched() const;

 private:
  void copy(uint64_t start, uint64_t end);
  void copy_page_of(uint64_t address);

  uint8_t* bytes(uint64_t address) const { return memory_ + (address - host_); }

  uint8_t* memory_;
  /// The same as a number.
  uint64_t host_;
  uint64_t size_;
  std::vector<HostRun> runs_;
  std::shared_ptr<const BackingFile> layer_;
  Userfault userfault_;
  /// By page of the mapping.
  std::vector<bool> copied_;
  std::vector<bool> released_;
};

}  // namespace kvmsnap
