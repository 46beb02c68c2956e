// One region of guest RAM: a reserved range of host addresses that never moves, and what is mapped
// under it. KVM follows a change of the mapping by itself (MMU notifiers).
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "kvm/mapping.h"
#include "memory/image.h"
#include "memory/late_copy.h"
#include "memory/page_scan.h"
#include "memory/region_spec.h"
#include "memory/userfault.h"

namespace kvmsnap {

/// Granules of a region that may be cut up before they are mapped anew by themselves.
constexpr size_t kMostCutGranules = 128;

struct FrozenRegion {
  std::shared_ptr<const Image> image;
  /// The memory where it was mapped so far, its page tables in place: who reads the image soon
  /// reads it here for nothing. To be dropped when read. May be null.
  std::shared_ptr<const Mapping> view;
};

class Region {
 public:
  struct Outdated {
    std::shared_ptr<const Image> image;
    std::vector<std::shared_ptr<const Mapping>> views;
  };

  /// Zeros (a fresh memfd, mapped shared), or the part of `image` that covers it, copy-on-write.
  Region(const RegionSpec& spec, std::shared_ptr<const Image> image);

  const RegionSpec& spec() const { return spec_; }
  void set_flags(uint32_t flags);
  uint8_t* host() const { return range_.get(); }

  /// Makes what it holds now immutable and goes on copy-on-write from there. The caller sees to it
  /// that nobody writes meanwhile. On an exception nothing has changed.
  ///
  /// The first time nothing is copied: the memfd becomes the image, and the old mapping its view.
  /// Later the pages written since are copied, once, into a layer over it: at once, or, if `late`
  /// and it is worth while, by `copy_late` and `end_late`, while writers go on.
  FrozenRegion freeze(bool late);
  /// Whether it has never been frozen, nor comes from an image.
  bool is_cold() const { return cold_ != nullptr; }
  /// Takes pages of cold memory out of the page tables, the host's and KVM's. They stay in the
  /// file, and are mapped again when they are touched. A freeze then finds few that it has to take
  /// out while the guest stands.
  void loosen(uint64_t offset, uint64_t length);
  bool has_late_copy() const { return late_ != nullptr; }
  /// Until it is through writers wait for their page; who else waits for them calls `serve_late`.
  void copy_late() { late_->run(); }
  void serve_late() { late_->serve(); }
  /// Maps what was copied. `whole`: all was copied; else the freeze has not been.
  void end_late(bool whole);

  /// Makes it what `image` says, which covers it: pages written since it was mapped from that image
  /// are put back, and all of it is mapped anew where it holds another. Nobody may write meanwhile.
  /// Adds to `written` where it may have held something else, in order.
  void reset(const std::shared_ptr<const Image>& image, std::vector<GpaRange>& written);
  /// The same by mapping all of it anew, so that nothing stays of what was written.
  void map_anew(const std::shared_ptr<const Image>& image);
  /// The image that it is being filled from while it is cold: what is frozen of it has that
  /// descent.
  void set_base(std::shared_ptr<const Image> base) { base_ = std::move(base); }
  /// It holds what `image` says, which covers it: what `reset` to that image can count on.
  void set_origin(std::shared_ptr<const Image> image) { origin_ = std::move(image); }

  /// What is mapped copy-on-write; null while it is cold. While a late copy goes on, its uppermost
  /// layer is not to be looked at.
  const std::shared_ptr<const Image>& image() const { return image_; }
  /// Whether its layers, or the pieces of them, are many more than when it was last asked to be
  /// flattened.
  bool wants_flattening() const;
  void note_flattening() { note_flattening(*image_); }
  /// Goes on with `image`, which has the bytes of `image()` and is made from `flat`. Returns what
  /// it needs no more, to be dropped when nobody waits: that may free much memory.
  Outdated move_to(std::shared_ptr<const Image> image, const Image& flat);
  /// Whether freezes have cut what is mapped into very many pieces.
  bool is_cut_up() const { return cut_granules_ > kMostCutGranules; }
  /// The same of the granule at `offset`.
  bool is_cut_up(uint64_t offset) const;
  /// Maps the granule at `offset` anew, if freezes have cut it up, while others go on: who writes
  /// to it meanwhile waits some 100 µs. It should be populated: a page that is not is taken for a
  /// private one, and left where it is. `userfault` is for that alone. Throws ERR_SYSTEM when it
  /// cannot be, as for memory mapped from a snapshot's files; what is mapped has the same bytes.
  void tidy(uint64_t offset, const Userfault& userfault);

  /// Host copies. They go through the kernel (process_vm_readv, process_vm_writev), so that a page
  /// whose file was cut short under us is an error, not a SIGBUS.
  void read(uint64_t offset, std::span<uint8_t> bytes) const;
  void write(uint64_t offset, std::span<const uint8_t> bytes);

  /// ORs the pages that `write` touched since the last call into `bitmap`, and forgets them. KVM's
  /// dirty log does not see those writes.
  void take_host_writes(std::span<uint64_t> bitmap);
  /// The same without forgetting: `forget_host_writes` does that, page by page, from the 64th page
  /// times `first_word` on.
  void join_host_writes(std::span<uint64_t> bitmap) const;
  void forget_host_writes(size_t first_word, std::span<const uint64_t> bitmap);
  void mark_host_writes(size_t first_word, std::span<const uint64_t> bitmap);

 private:
  Mapping move_pages_aside();
  FrozenRegion freeze_cold();
  std::shared_ptr<const Image> freeze_private(bool late);
  void copy_into_layer(const std::vector<HostRun>& runs, bool late);
  std::vector<HostRun> map_clean(std::vector<HostRun> runs);
  void note_flattening(const Image& image);
  void note_cuts(const std::vector<HostRun>& runs);
  std::vector<HostRun> changed_of(const std::vector<HostRun>& privates) const;
  void put_back(const std::vector<HostRun>& runs);
  void put_back(const HostRun& run, bool by_copy);
  void note_host_writes(uint64_t offset, uint64_t length);

  RegionSpec spec_;
  Mapping range_;
  /// What is mapped shared while no image lies below.
  std::shared_ptr<const BackingFile> cold_;
  /// See set_base; may be null.
  std::shared_ptr<const Image> base_;
  /// What is mapped copy-on-write otherwise.
  std::shared_ptr<const Image> image_;
  // Of `image_` when it was last flattened; what came from elsewhere has no layers yet.
  size_t layers_then_ = 0;
  size_t extents_then_ = 0;
  /// Pages of `image_` that were too scattered to be mapped anew: they lie over an older image.
  bool behind_ = false;
  /// Pages that were private though they held what `image_` says, in order: copied by a freeze or
  /// a reset. They may have been written since, or mapped anew.
  std::vector<HostRun> clean_privates_;
  /// Pages that were private since the last freeze or reset, and are not any more.
  std::vector<HostRun> dropped_;
  /// By granule of the region: runs that were mapped, or could not be, since it was mapped as one.
  std::vector<uint32_t> cuts_;
  size_t cut_granules_ = 0;
  /// Views of `image_`'s files that a reset has copied from: the next one finds them mapped.
  std::vector<std::shared_ptr<const Mapping>> sources_;
  /// The machine's whole image that `image_` is a part of; null: not known.
  std::shared_ptr<const Image> origin_;
  std::vector<std::atomic<uint64_t>> host_writes_;
  /// On its way into `image_`'s uppermost layer, and what was before.
  std::unique_ptr<LateCopy> late_;
  std::shared_ptr<const Image> image_before_;
  std::vector<HostRun> clean_before_;
};

}  // namespace kvmsnap
