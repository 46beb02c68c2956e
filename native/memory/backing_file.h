// A file that guest memory is mapped from: a memfd of ours, or a part of a snapshot.
#pragma once

#include <cstdint>
#include <memory>

#include "kvm/fd.h"

namespace kvmsnap {

class BackingFile {
 public:
  /// A sparse memfd of `size` bytes that can neither shrink nor grow.
  static std::shared_ptr<BackingFile> create_memfd(const char* name, uint64_t size);
  /// A regular file or memfd, through a duplicate of `fd`. Throws ERR_INVALID_ARGUMENT for anything
  /// else.
  static std::shared_ptr<BackingFile> duplicate(int fd);

  int fd() const { return fd_.get(); }
  /// Bytes when it was opened. Another process may have changed a snapshot's file since: reads
  /// check again, and access through a mapping goes by process_vm_readv, which fails instead of
  /// SIGBUS.
  uint64_t size() const { return size_; }

  /// No new writable shared mapping and no write(2) from now on (F_SEAL_FUTURE_WRITE).
  void seal() const;
  /// The next range of data at or after `offset` and below `end` (lseek SEEK_DATA, SEEK_HOLE);
  /// false when there is none. A file system without holes reports everything as data.
  bool next_data(uint64_t offset, uint64_t end, uint64_t* start, uint64_t* stop) const;

 private:
  BackingFile(UniqueFd fd, uint64_t size) : fd_(std::move(fd)), size_(size) {}

  UniqueFd fd_;
  uint64_t size_;
};

}  // namespace kvmsnap
