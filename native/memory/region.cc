#include "memory/region.h"

#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <set>
#include <utility>

#include "kvm/error.h"
#include "kvm/uapi.h"
#include "memory/file_io.h"

namespace kvmsnap {

namespace {

// Each run that is mapped anew costs 1 to 2 µs and a mapping of the process's 65530
// (vm.max_map_count). Beyond this the pages stay where they are: they are found again at the next
// freeze, which costs a second copy but no correctness.
constexpr size_t kMostRemaps = 256;

// Bytes of written pages above which a reset drops them.
constexpr uint64_t kMostCopied = 16 << 20;

// Layers of an image, and pieces, beyond which they are flattened. A layer is a descriptor, of some
// 1000 to 500 000 that a process may have. A piece is a mapping of each fork, 7 µs, and a freeze
// walks all pieces while the guest stands still, at 12 ns each. Below, the copies are not worth it.
constexpr size_t kMostLayers = 64;
constexpr size_t kMostPieces = 4096;

// Runs that freezes have mapped in a granule, from which on it is mapped anew: at some 300 µs, and
// a fault for each page that the guest wants again.
constexpr uint32_t kMostCuts = 32;

using Transfer = ssize_t (*)(pid_t, const iovec*, unsigned long, const iovec*, unsigned long,
                             unsigned long);

void transfer_all(Transfer transfer, const char* name, uint8_t* local, uint8_t* guest,
                  size_t length) {
  for (size_t done = 0; done < length;) {
    iovec here = {local + done, length - done};
    iovec there = {guest + done, length - done};
    ssize_t count = transfer(::getpid(), &here, 1, &there, 1, 0);
    if (count < 0 && errno == EFAULT) {
      throw Error("ERR_SNAPSHOT_CORRUPT",
                  "a memory file of the snapshot was cut short while a machine ran on it");
    }
    if (count <= 0) throw_system(name);
    done += static_cast<size_t>(count);
  }
}

}  // namespace

Region::Region(const RegionSpec& spec, std::shared_ptr<const Image> image)
    : spec_(spec),
      range_(spec.size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1),
      cuts_(spec.size / kGranule + 1),
      host_writes_(spec.size / kPageSize / 64 + 1) {
  if (image != nullptr) {
    image_ = image->clipped({spec.gpa, spec.size});
    image->place(spec.gpa, spec.size, range_.get());
    origin_ = std::move(image);
    extents_then_ = image_->extents().size();
    return;
  }
  auto file = BackingFile::create_memfd("kvmsnap-ram", spec.size);
  if (!map_over(range_.get(), spec.size, PROT_READ | PROT_WRITE, MAP_SHARED, file->fd())) {
    throw_system("mmap");
  }
  cold_ = std::move(file);
}

void Region::loosen(uint64_t offset, uint64_t length) {
  // Of a mapping that is shared: of a private one it would drop what was written. What fails only
  // saves no time.
  if (cold_ != nullptr) ::madvise(range_.get() + offset, length, MADV_DONTNEED);
}

FrozenRegion Region::freeze(bool late) {
  if (cold_ != nullptr) return freeze_cold();
  return {.image = freeze_private(late), .view = nullptr};
}

// Mapping over populated memory tears its page tables down first, some 20 ms a GiB in 4 KiB pages,
// and the guest stands still meanwhile. Moving them elsewhere costs a step for each 2 MiB instead.
// MREMAP_DONTUNMAP on shared mappings is Linux 5.13: without it the caller's mmap does the work.
Mapping Region::move_pages_aside() {
  void* aside = ::mremap(range_.get(), range_.size(), range_.size(),
                         MREMAP_MAYMOVE | MREMAP_DONTUNMAP, nullptr);
  return aside == MAP_FAILED ? Mapping() : Mapping::adopt(aside, range_.size());
}

FrozenRegion Region::freeze_cold() {
  std::vector<Extent> whole = {{.file = 0, .gpa = spec_.gpa, .length = spec_.size, .offset = 0}};
  auto image = base_ != nullptr
                   ? base_->overlaid(cold_, std::move(whole))
                   : std::make_shared<const Image>(std::vector<GpaRange>{{spec_.gpa, spec_.size}},
                                                   std::vector{cold_}, std::move(whole));
  // What can fail comes before `cold_` is given up: until then the mapping is what it was, its page
  // tables aside. The seal leaves mappings that are writable already alone.
  cold_->seal();
  Mapping aside = move_pages_aside();
  std::shared_ptr<const Mapping> view;
  if (aside.get() != nullptr) view = cold_->lend_view(std::move(aside));
  image->map(spec_.gpa, spec_.size, range_.get());
  cold_ = nullptr;
  base_ = nullptr;
  image_ = std::move(image);
  return {.image = image_, .view = std::move(view)};
}

std::shared_ptr<const Image> Region::freeze_private(bool late) {
  std::vector<HostRun> privates = scan_private_pages(range_.get(), spec_.size);
  std::vector<HostRun> runs = changed_of(privates);
  dropped_.clear();
  clean_before_ = clean_privates_;
  image_before_ = image_;
  if (!runs.empty()) copy_into_layer(runs, late);
  if (late_ != nullptr) {
    clean_privates_ = std::move(privates);
    return image_;
  }
  image_before_ = nullptr;
  clean_before_.clear();
  clean_privates_ = map_clean(std::move(privates));
  behind_ = !clean_privates_.empty();
  return image_;
}

void Region::copy_into_layer(const std::vector<HostRun>& runs, bool late) {
  auto layer = BackingFile::create_memfd("kvmsnap-layer", spec_.size);
  uint64_t base = reinterpret_cast<uintptr_t>(range_.get());
  std::vector<Extent> extents;
  extents.reserve(runs.size());
  for (const HostRun& run : runs) {
    uint64_t offset = run.start - base;
    extents.push_back(
        {.file = 0, .gpa = spec_.gpa + offset, .length = run.end - run.start, .offset = offset});
  }
  auto image = image_->overlaid(layer, std::move(extents));
  if (late && LateCopy::worthwhile(runs)) {
    try {
      late_ = std::make_unique<LateCopy>(range_.get(), spec_.size, runs, layer);
    } catch (const Error&) {
      // Not on this host, or not for this memory: at once, then.
    }
  }
  if (late_ == nullptr) {
    for (const HostRun& run : runs) {
      uint64_t offset = run.start - base;
      write_all(layer->fd(), range_.get() + offset, run.end - run.start, offset);
    }
    layer->seal();
  }
  sources_.clear();
  image_ = std::move(image);
  behind_ = true;
}

void Region::end_late(bool whole) {
  std::unique_ptr<LateCopy> late = std::move(late_);
  auto before = std::exchange(image_before_, nullptr);
  auto clean_before = std::exchange(clean_before_, {});
  if (!whole) {
    image_ = std::move(before);
    clean_privates_ = std::move(clean_before);
    origin_ = nullptr;
    return;
  }
  late->seal();
  // What is protected cannot change until it is mapped from the layer.
  std::vector<HostRun> untouched = late->untouched();
  bool all = same_pages(untouched, late->runs());
  clean_privates_ = without(clean_privates_, late->runs());
  all = clean_privates_.empty() && all;
  std::vector<HostRun> left = map_clean(std::move(untouched));
  behind_ = !all || !left.empty();
  clean_privates_ = joined(clean_privates_, left);
}

// `runs` hold what the image says, and nobody writes there meanwhile. Returns those that stay where
// they are.
std::vector<HostRun> Region::map_clean(std::vector<HostRun> runs) {
  note_cuts(runs);
  size_t mapped = 0;
  if (runs.size() > kMostRemaps) {
    std::nth_element(
        runs.begin(), runs.begin() + kMostRemaps, runs.end(),
        [](const HostRun& a, const HostRun& b) { return a.end - a.start > b.end - b.start; });
  }
  uint64_t base = reinterpret_cast<uintptr_t>(range_.get());
  try {
    for (; mapped < std::min(runs.size(), kMostRemaps); mapped++) {
      uint64_t offset = runs[mapped].start - base;
      image_->map(spec_.gpa + offset, runs[mapped].end - runs[mapped].start, range_.get() + offset);
    }
  } catch (const Error&) {
    // No mapping to be had. What is not mapped anew holds the same bytes: see kMostRemaps.
  }
  runs.erase(runs.begin(), runs.begin() + static_cast<ptrdiff_t>(mapped));
  std::sort(runs.begin(), runs.end(),
            [](const HostRun& a, const HostRun& b) { return a.start < b.start; });
  return runs;
}

bool Region::is_cut_up(uint64_t offset) const { return cuts_[offset / kGranule] >= kMostCuts; }

void Region::note_cuts(const std::vector<HostRun>& runs) {
  uint64_t base = reinterpret_cast<uintptr_t>(range_.get());
  for (const HostRun& run : runs) {
    if (++cuts_[(run.start - base) / kGranule] == kMostCuts) cut_granules_++;
  }
}

namespace {

// Watches a range for as long as it lives; who waits then goes on.
class Watched {
 public:
  Watched(const Userfault& userfault, uint8_t* host, uint64_t size)
      : userfault_(userfault), host_(host), size_(size) {
    userfault_.watch(host_, size_);
  }
  Watched(const Watched&) = delete;
  Watched& operator=(const Watched&) = delete;
  ~Watched() {
    try {
      userfault_.forget(host_, size_);
    } catch (const Error&) {
      // Closing the descriptor does it.
    }
    // Also those who found it protected, and something else is mapped there by now.
    userfault_.wake(host_, size_);
  }

 private:
  const Userfault& userfault_;
  uint8_t* host_;
  uint64_t size_;
};

}  // namespace

void Region::tidy(uint64_t offset, const Userfault& userfault) {
  if (!is_cut_up(offset)) return;
  cuts_[offset / kGranule] = 0;
  cut_granules_--;
  uint8_t* host = range_.get() + offset;
  uint64_t size = std::min(kGranule, spec_.size - offset);
  uint64_t start = reinterpret_cast<uintptr_t>(host);
  Watched watched(userfault, host, size);
  userfault.protect(start, size, true);
  // From here on no page becomes private or changes.
  std::vector<HostRun> privates = scan_private_pages(host, size);
  std::vector<HostRun> changed = changed_of(privates);
  // A reset is to know that they were written, though they are as they were.
  dropped_ = joined(dropped_, without(without(privates, changed), dropped_));
  auto map_to = [&](uint64_t end) {
    if (end > start) {
      uint64_t at = start - reinterpret_cast<uintptr_t>(range_.get());
      image_->map(spec_.gpa + at, end - start, range_.get() + at);
    }
  };
  for (const HostRun& run : changed) {
    map_to(run.start);
    start = run.end;
  }
  map_to(reinterpret_cast<uintptr_t>(host) + size);
}

// Of private pages, those that do not hold what the image has there. Only pages that had it once
// are compared: what is left is private because it was written since.
std::vector<HostRun> Region::changed_of(const std::vector<HostRun>& privates) const {
  std::vector<HostRun> changed;
  // So that each file is mapped once.
  std::set<std::shared_ptr<const Mapping>> views;
  uint64_t base = reinterpret_cast<uintptr_t>(range_.get());
  auto clean = clean_privates_.begin();
  for (const HostRun& run : privates) {
    for (uint64_t page = run.start; page < run.end; page += kPageSize) {
      while (clean != clean_privates_.end() && clean->end <= page) ++clean;
      if (clean != clean_privates_.end() && clean->start <= page) {
        std::shared_ptr<const Mapping> view;
        auto bytes = image_->look(spec_.gpa + (page - base), kPageSize, view);
        bool same = !bytes.empty() &&
                    std::memcmp(range_.get() + (page - base), bytes.data(), kPageSize) == 0;
        if (view != nullptr) views.insert(std::move(view));
        if (same) continue;
      }
      append_run(changed, page, page + kPageSize);
    }
  }
  return changed;
}

void Region::reset(const std::shared_ptr<const Image>& image, std::vector<GpaRange>& written) {
  if (origin_ != image) {
    map_anew(image);
    written.push_back({spec_.gpa, spec_.size});
    return;
  }
  clean_privates_ = scan_private_pages(range_.get(), spec_.size);
  put_back(clean_privates_);
  uint64_t base = reinterpret_cast<uintptr_t>(range_.get());
  for (const HostRun& run : joined(clean_privates_, without(dropped_, clean_privates_))) {
    written.push_back({spec_.gpa + (run.start - base), run.end - run.start});
  }
  dropped_.clear();
}

void Region::map_anew(const std::shared_ptr<const Image>& image) {
  std::shared_ptr<const Image> part = image->clipped({spec_.gpa, spec_.size});
  // Until it is mapped it may be half of each.
  origin_ = nullptr;
  sources_.clear();
  image->place(spec_.gpa, spec_.size, range_.get());
  note_host_writes(0, spec_.size);
  behind_ = false;
  cold_ = nullptr;
  base_ = nullptr;
  image_ = std::move(part);
  origin_ = image;
  layers_then_ = 0;
  extents_then_ = image_->extents().size();
  dropped_.clear();
  cuts_.assign(cuts_.size(), 0);
  cut_granules_ = 0;
}

namespace {

// Snapshots' files are as many as they are.
size_t layers_of(const Image& image) {
  const auto& files = image.files();
  return static_cast<size_t>(
      std::count_if(files.begin(), files.end(), [](const auto& file) { return file->is_ours(); }));
}

}  // namespace

bool Region::wants_flattening() const {
  return image_ != nullptr && (layers_of(*image_) > layers_then_ + kMostLayers ||
                               image_->extents().size() > 2 * extents_then_ + kMostPieces);
}

void Region::note_flattening(const Image& image) {
  layers_then_ = layers_of(image);
  extents_then_ = image.extents().size();
}

// What is mapped stays what it is: files are told apart by nobody but the image.
Region::Outdated Region::move_to(std::shared_ptr<const Image> image, const Image& flat) {
  Outdated outdated = {.image = std::exchange(image_, std::move(image)),
                       .views = std::exchange(sources_, {})};
  // What was frozen meanwhile counts for the next time.
  note_flattening(flat);
  return outdated;
}

// A page that is copied back stays mapped for the guest, at 0.2 to 0.5 µs each; one that is dropped
// costs a fault of some µs when the guest wants it again, but many are dropped at once.
void Region::put_back(const std::vector<HostRun>& runs) {
  uint64_t total = 0;
  for (const HostRun& run : runs) total += run.end - run.start;
  if (total > kMostCopied && behind_) {
    image_->map(spec_.gpa, spec_.size, range_.get());
    behind_ = false;
    note_host_writes(0, spec_.size);
    return;
  }
  for (const HostRun& run : runs) put_back(run, total <= kMostCopied);
}

void Region::put_back(const HostRun& run, bool by_copy) {
  uint64_t offset = run.start - reinterpret_cast<uintptr_t>(range_.get());
  uint64_t end = offset + (run.end - run.start);
  note_host_writes(offset, end - offset);
  std::shared_ptr<const Mapping> view;
  while (by_copy && offset < end) {
    std::span<const uint8_t> clean = image_->look(spec_.gpa + offset, end - offset, view);
    if (clean.empty()) break;
    std::memcpy(range_.get() + offset, clean.data(), clean.size());
    offset += clean.size();
    if (std::find(sources_.begin(), sources_.end(), view) == sources_.end()) {
      sources_.push_back(std::move(view));
    }
  }
  // Zeros, or a file that is not ours: where it was mapped from it still is, even if `behind_`.
  if (offset < end && ::madvise(range_.get() + offset, end - offset, MADV_DONTNEED) < 0) {
    throw_system("madvise");
  }
}

void Region::read(uint64_t offset, std::span<uint8_t> bytes) const {
  transfer_all(::process_vm_readv, "process_vm_readv", bytes.data(), range_.get() + offset,
               bytes.size());
}

void Region::write(uint64_t offset, std::span<const uint8_t> bytes) {
  if (bytes.empty()) return;
  transfer_all(::process_vm_writev, "process_vm_writev", const_cast<uint8_t*>(bytes.data()),
               range_.get() + offset, bytes.size());
  note_host_writes(offset, bytes.size());
}

void Region::note_host_writes(uint64_t offset, uint64_t length) {
  uint64_t last = (offset + length - 1) / kPageSize;
  for (uint64_t page = offset / kPageSize; page <= last; page++) {
    host_writes_[page / 64].fetch_or(uint64_t{1} << page % 64, std::memory_order_relaxed);
  }
}

void Region::set_flags(uint32_t flags) {
  // A log starts empty, as KVM's own does.
  if ((flags & ~spec_.flags & KVM_MEM_LOG_DIRTY_PAGES) != 0) {
    for (auto& word : host_writes_) word.store(0, std::memory_order_relaxed);
  }
  spec_.flags = flags;
}

void Region::take_host_writes(std::span<uint64_t> bitmap) {
  for (size_t word = 0; word < bitmap.size() && word < host_writes_.size(); word++) {
    bitmap[word] |= host_writes_[word].exchange(0, std::memory_order_relaxed);
  }
}

void Region::join_host_writes(std::span<uint64_t> bitmap) const {
  for (size_t word = 0; word < bitmap.size() && word < host_writes_.size(); word++) {
    bitmap[word] |= host_writes_[word].load(std::memory_order_relaxed);
  }
}

void Region::forget_host_writes(size_t first_word, std::span<const uint64_t> bitmap) {
  for (size_t word = 0; word < bitmap.size() && first_word + word < host_writes_.size(); word++) {
    host_writes_[first_word + word].fetch_and(~bitmap[word], std::memory_order_relaxed);
  }
}

void Region::mark_host_writes(size_t first_word, std::span<const uint64_t> bitmap) {
  for (size_t word = 0; word < bitmap.size() && first_word + word < host_writes_.size(); word++) {
    host_writes_[first_word + word].fetch_or(bitmap[word], std::memory_order_relaxed);
  }
}

}  // namespace kvmsnap
