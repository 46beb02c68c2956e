// An image: immutable guest memory, as extents of files. What no extent covers is zeros.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "memory/backing_file.h"

namespace kvmsnap {

/// Bytes of guest memory that are stored or left out as a whole, so that a restore maps few, large
/// extents. Aligned to guest addresses.
constexpr uint64_t kGranule = 2 << 20;

/// For work that nobody cancels.
inline const std::atomic<bool> kNeverCancelled{false};

/// `length` bytes of guest memory at `gpa` are those at `offset` of file number `file`.
struct Extent {
  uint32_t file = 0;
  uint64_t gpa = 0;
  uint64_t length = 0;
  uint64_t offset = 0;

  uint64_t end() const { return gpa + length; }
};

/// A range of guest physical addresses, in bytes.
struct GpaRange {
  uint64_t gpa = 0;
  uint64_t size = 0;

  uint64_t end() const { return gpa + size; }
  bool operator==(const GpaRange&) const = default;
};

class Image : public std::enable_shared_from_this<Image> {
 public:
  /// Checks everything: alignment, extents inside regions and files, no overlaps. Sorts by gpa.
  /// Throws ERR_SNAPSHOT_FORMAT.
  Image(std::vector<GpaRange> regions, std::vector<std::shared_ptr<const BackingFile>> files,
        std::vector<Extent> extents);

  const std::vector<GpaRange>& regions() const { return regions_; }
  const std::vector<Extent>& extents() const { return extents_; }
  /// What extents number.
  const std::vector<std::shared_ptr<const BackingFile>>& files() const { return files_; }
  const BackingFile& file(const Extent& extent) const { return *files_[extent.file]; }
  /// The files that its oldest layer was made of, by id, ordered. What is derived from it has the
  /// same, whatever was laid over it since.
  const std::vector<uint64_t>& lineage() const { return lineage_; }
  /// It comes from that file too, though it has no bytes of it any more. Before anybody else has
  /// it.
  void add_ancestor(uint64_t file);

  /// The images of checked files that it was made from, without itself: where a page of it is not
  /// theirs any more, it may still be a copy of one of them that the guest has written a part of.
  const std::vector<std::shared_ptr<const Image>>& sources() const { return sources_; }
  /// No byte of it comes from its files: others bring them from elsewhere. Before anybody else has
  /// it.
  void forget_sources() {
    sources_.clear();
    from_files_ = false;
  }
  /// Throws ERR_SNAPSHOT_CORRUPT when a snapshot's file that it has bytes of was cut short. A
  /// system call for each, below a microsecond.
  void require_whole() const;

  /// A new image: this one with `extents` of `file` laid over it.
  std::shared_ptr<const Image> overlaid(std::shared_ptr<const BackingFile> file,
                                        std::vector<Extent> extents) const;
  /// The same with several files, which the extents number from 0.
  std::shared_ptr<const Image> overlaid(std::span<const std::shared_ptr<const BackingFile>> files,
                                        std::vector<Extent> extents) const;

  /// A new image with the same bytes in other places.
  std::shared_ptr<const Image> moved(std::vector<std::shared_ptr<const BackingFile>> files,
                                     std::vector<Extent> extents) const;

  /// The part of it in `range`, which must be inside one region.
  std::shared_ptr<Image> clipped(const GpaRange& range) const;
  /// One image of several, which have no region in common.
  static std::shared_ptr<const Image> joined(std::span<const std::shared_ptr<const Image>> images);

  /// Copies, without mapping: a file that was cut short under us gives ERR_SNAPSHOT_CORRUPT.
  /// Throws ERR_GUEST_ADDRESS outside the regions.
  void read(uint64_t gpa, std::span<uint8_t> bytes) const;

  /// The longest piece of [gpa, gpa + size) that lies in one piece in this process's memory, from
  /// `gpa` on, in a view that is `held` until the next call. Empty when there is none: `read` it.
  std::span<const uint8_t> look(uint64_t gpa, uint64_t size,
                                std::shared_ptr<const Mapping>& held) const;

  /// Maps [gpa, gpa + size) copy-on-write over the host addresses at `host`, which must be
  /// reserved. One mmap for each extent and each gap. No page is read.
  void map(uint64_t gpa, uint64_t size, uint8_t* host) const;
  /// The same, faster, for memory that nobody uses yet: on an exception it may hold anything. What
  /// `prepare` made is mapped, once it is there; of too many extents `place` makes it itself.
  void place(uint64_t gpa, uint64_t size, uint8_t* host) const;

  /// Copies very many extents together, once (see composed): milliseconds, or many of them.
  /// Throws ERR_ABORTED once `cancelled`; who waits for another's copy heeds it, too.
  void prepare(const std::atomic<bool>& cancelled = kNeverCancelled) const;
  /// Whether that is still to be done for extents as many as these.
  bool is_scattered() const;
  /// To be asked before each machine that is made from it: whether to `prepare` before. Not for the
  /// first, if it can be mapped without: it may stay the only one.
  bool wants_preparing() const;

  /// The first address from `gpa` on, below `end`, where there may be anything but zeros.
  std::optional<uint64_t> next_data(uint64_t gpa, uint64_t end) const;

  /// The granules that may have content, each cut at the borders of extents: those in which a file
  /// has data. Ordered by gpa. Found once, by a system call for each.
  const std::vector<GpaRange>& content() const;

 private:
  /// Of the same descent. Files without an extent are let go.
  std::shared_ptr<Image> derived(std::vector<GpaRange> regions,
                                 std::vector<std::shared_ptr<const BackingFile>> files,
                                 std::vector<Extent> extents) const;
  /// The first extent that ends after `gpa`.
  std::vector<Extent>::const_iterator extent_after(uint64_t gpa) const;
  std::vector<GpaRange> find_content() const;
  uint64_t reach_of(std::vector<Extent>::const_iterator extent) const;

  std::vector<GpaRange> regions_;
  std::vector<std::shared_ptr<const BackingFile>> files_;
  std::vector<Extent> extents_;
  std::vector<uint64_t> lineage_;
  std::vector<std::shared_ptr<const Image>> sources_;
  bool from_files_ = true;
  mutable std::mutex preparing_;
  /// The same bytes in fewer extents; null: this one has few.
  mutable std::shared_ptr<const Image> composed_;
  mutable std::atomic<bool> is_prepared_ = false;
  mutable std::atomic<bool> is_used_ = false;
  mutable std::once_flag content_found_;
  mutable std::vector<GpaRange> content_;
};

}  // namespace kvmsnap
