// A file that guest memory is mapped from: a memfd of ours, or a part of a snapshot.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "kvm/fd.h"
#include "kvm/mapping.h"
#include "memory/chunk_sums.h"

namespace kvmsnap {

class BackingFile {
 public:
  /// A sparse memfd of `size` bytes that can neither shrink nor grow.
  static std::shared_ptr<BackingFile> create_memfd(const char* name, uint64_t size);
  /// A regular file or memfd, through a duplicate of `fd`. The same object as before while one of
  /// the same file is in use, so that who opens a snapshot twice is seen to have the same bytes.
  /// Files of one `digest` (hexadecimal, at least 64 bits at its end) have the same id: a blob of a
  /// store may be replaced by an equal one. Throws ERR_INVALID_ARGUMENT for anything else, and
  /// ERR_SNAPSHOT_FORMAT when `sums`, which may be null, is not of as many chunks as the file has.
  static std::shared_ptr<BackingFile> duplicate(int fd, std::string_view digest = {},
                                                std::shared_ptr<const ChunkSums> sums = nullptr);

  static uint64_t id_of(std::string_view digest);

  /// No other bytes of this process had or will have it; never 0.
  uint64_t id() const { return id_; }
  /// Whose bytes a stretch of a file has that is a copy of others; `file` 0: zeros.
  struct Origin {
    uint64_t offset = 0;
    uint64_t length = 0;
    uint64_t file = 0;
    uint64_t file_offset = 0;

    uint64_t end() const { return offset + length; }
  };
  /// In order and without a gap, of no copies; empty: its bytes are its own.
  const std::vector<Origin>& origins() const { return origins_; }
  /// Before anybody else has it.
  void set_origins(std::vector<Origin> origins) { origins_ = std::move(origins); }

  /// What its bytes should be; null: nothing is known of that.
  const ChunkSums* sums() const { return sums_.get(); }
  /// Its digest, for people; empty for a file without one.
  const std::string& name() const { return name_; }
  /// That a chunk had its checksum when it was last compared, since the file was opened.
  bool known_good(uint64_t chunk) const { return good_[chunk].load(std::memory_order_relaxed); }
  void note_good(uint64_t chunk) const { good_[chunk].store(true, std::memory_order_relaxed); }

  /// A memfd of this process, which nobody cuts short.
  bool is_ours() const { return ours_; }
  int fd() const { return fd_.get(); }
  /// Bytes when it was opened. Another process may have changed a snapshot's file since: reads
  /// check again, and access through a mapping goes by process_vm_readv, which fails instead of
  /// SIGBUS.
  uint64_t size() const { return size_; }

  /// The whole file in this process's memory, mapped while somebody holds it. Null for a file that
  /// is not ours: when another process cut it short, a read would be a SIGBUS.
  std::shared_ptr<const Mapping> view() const;
  /// `mapping` is one of the whole file, its pages in place, and becomes its view. It is unmapped
  /// on a thread of its own: that takes 20 ms a GiB.
  std::shared_ptr<const Mapping> lend_view(Mapping mapping) const;

  /// Throws ERR_SNAPSHOT_CORRUPT when it has become shorter than it was when it was opened. A
  /// system call for a file that is not ours.
  void require_whole() const;

  /// No new writable shared mapping and no write(2) from now on (F_SEAL_FUTURE_WRITE).
  void seal() const;
  /// Where the next data is, at or after `offset` and below `end` (lseek SEEK_DATA). A file system
  /// without holes reports everything as data. Throws ERR_SNAPSHOT_CORRUPT when the file ends below
  /// `end` by now.
  std::optional<uint64_t> next_data(uint64_t offset, uint64_t end) const;

 private:
  BackingFile(uint64_t id, UniqueFd fd, uint64_t size, bool ours);
  void set_sums(std::string_view name, std::shared_ptr<const ChunkSums> sums);

  void require_size(uint64_t end) const;

  uint64_t id_;
  UniqueFd fd_;
  uint64_t size_;
  bool ours_;
  std::vector<Origin> origins_;
  std::string name_;
  std::shared_ptr<const ChunkSums> sums_;
  /// By chunk; empty without sums.
  mutable std::vector<std::atomic<bool>> good_;
  mutable std::mutex mutex_;
  mutable std::weak_ptr<const Mapping> view_;
};

}  // namespace kvmsnap
