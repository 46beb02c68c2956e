#include "memory/guest_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <mutex>
#include <thread>
#include <utility>

#include "kvm/error.h"
#include "memory/flatten.h"

namespace kvmsnap {

namespace {

// So that others get the lock in between.
constexpr std::chrono::microseconds kBetweenGranules(100);

void require_covered(const Image& image, const RegionSpec& spec) {
  const auto& covered = image.regions();
  bool inside = std::any_of(covered.begin(), covered.end(), [&](const GpaRange& range) {
    return spec.gpa >= range.gpa && spec.end() <= range.end();
  });
  if (!inside) {
    throw Error("ERR_SNAPSHOT_FORMAT",
                "the image has no memory for the region at " + hex(spec.gpa));
  }
}

}  // namespace

void GuestMemory::add(const RegionSpec& spec, const std::shared_ptr<const Image>& image) {
  check_range(spec.gpa, spec.size);
  settle();
  std::unique_lock lock(mutex_);
  for (const auto& region : regions_) {
    const RegionSpec& other = region->spec();
    if (other.slot == spec.slot) {
      throw Error("ERR_INVALID_ARGUMENT",
                  "memory slot " + std::to_string(spec.slot) + " is in use: take another number");
    }
    if (spec.gpa < other.end() && other.gpa < spec.end()) {
      throw Error("ERR_INVALID_ARGUMENT", "guest memory at " + hex(spec.gpa) + " overlaps slot " +
                                              std::to_string(other.slot));
    }
  }
  if (image != nullptr) require_covered(*image, spec);
  auto region = std::make_unique<Region>(spec, image);
  auto place = std::upper_bound(
      regions_.begin(), regions_.end(), spec.gpa,
      [](uint64_t gpa, const std::unique_ptr<Region>& other) { return gpa < other->spec().gpa; });
  regions_.insert(place, std::move(region));
}

void GuestMemory::add_empty(const RegionSpec& spec, const std::shared_ptr<const Image>& image,
                            bool from_files) {
  check_range(spec.gpa, spec.size);
  require_covered(*image, spec);
  std::shared_ptr<Image> part = image->clipped({spec.gpa, spec.size});
  if (!from_files) part->forget_sources();
  add(spec, nullptr);
  std::unique_lock lock(mutex_);
  find(spec.slot).set_base(std::move(part));
}

void GuestMemory::remove(uint32_t slot) {
  settle();
  std::unique_lock lock(mutex_);
  Region* region = &find(slot);
  std::erase_if(regions_, [&](const auto& other) { return other.get() == region; });
}

void GuestMemory::set_flags(uint32_t slot, uint32_t flags) {
  std::unique_lock lock(mutex_);
  find(slot).set_flags(flags);
}

void GuestMemory::clear() {
  settle();
  flattener_.stop();
  std::unique_lock lock(mutex_);
  regions_.clear();
}

std::vector<RegionSpec> GuestMemory::regions() const {
  std::shared_lock lock(mutex_);
  std::vector<RegionSpec> specs;
  for (const auto& region : regions_) specs.push_back(region->spec());
  return specs;
}

RegionSpec GuestMemory::region(uint32_t slot) const {
  std::shared_lock lock(mutex_);
  return find(slot).spec();
}

uint8_t* GuestMemory::host(uint32_t slot) const {
  std::shared_lock lock(mutex_);
  return find(slot).host();
}

void GuestMemory::read(uint64_t gpa, std::span<uint8_t> bytes) const {
  std::shared_lock lock(mutex_);
  size_t done = 0;
  for (const Piece& piece : pieces(gpa, bytes.size())) {
    piece.region->read(piece.offset, bytes.subspan(done, piece.length));
    done += piece.length;
  }
}

void GuestMemory::write(uint64_t gpa, std::span<const uint8_t> bytes) {
  std::shared_lock lock(mutex_);
  size_t done = 0;
  for (const Piece& piece : pieces(gpa, bytes.size())) {
    piece.region->write(piece.offset, bytes.subspan(done, piece.length));
    done += piece.length;
  }
}

void LateFreeze::finish() {
  std::lock_guard lock(mutex_);
  if (auto work = std::exchange(work_, nullptr)) {
    try {
      work();
    } catch (...) {
      failure_ = current_error();
    }
  }
  if (failure_) throw Error(*failure_);
}

std::shared_ptr<LateFreeze> GuestMemory::late() const {
  std::lock_guard lock(late_mutex_);
  return late_;
}

bool GuestMemory::freezing() const { return late() != nullptr; }

void GuestMemory::settle() {
  std::shared_ptr<LateFreeze> late = this->late();
  if (late == nullptr) return;
  try {
    late->finish();
  } catch (const Error&) {
    // For who froze. Memory itself is what it was.
  }
}

// The VMM's own writers wait like the guest, and hold the lock meanwhile.
void GuestMemory::finish_late() {
  std::optional<Error> failure;
  try {
    for (const auto& region : regions_) {
      if (region->has_late_copy()) region->copy_late();
    }
  } catch (...) {
    failure = current_error();
  }
  std::unique_lock lock(mutex_, std::defer_lock);
  while (!lock.try_lock()) {
    for (const auto& region : regions_) {
      if (region->has_late_copy()) region->serve_late();
    }
    std::this_thread::yield();
  }
  end_late(failure);
  {
    std::lock_guard late_lock(late_mutex_);
    late_ = nullptr;
  }
  if (failure) {
    for (const auto& region : regions_) region->set_origin(nullptr);
    throw Error(*failure);
  }
  flatten_if_deep();
}

// Whatever fails, no region keeps a late copy: writers would wait for it for ever.
void GuestMemory::end_late(std::optional<Error>& failure) {
  for (const auto& region : regions_) {
    if (!region->has_late_copy()) continue;
    try {
      region->end_late(!failure);
    } catch (...) {
      failure = current_error();
    }
  }
}

// `mutex_` is held alone.
void GuestMemory::flatten_if_deep() {
  if (flattener_.is_busy()) return;
  std::vector<std::pair<uint32_t, std::shared_ptr<const Image>>> deep;
  for (const auto& region : regions_) {
    bool flatten = region->wants_flattening();
    if (!flatten && !region->is_cut_up()) continue;
    // Should it fail, it is tried again when there are as many more.
    if (flatten) region->note_flattening();
    deep.emplace_back(region->spec().slot, flatten ? region->image() : nullptr);
  }
  if (deep.empty()) return;
  flattener_.start([this, deep = std::move(deep)](const std::atomic<bool>& cancelled) {
    for (const auto& [slot, image] : deep) {
      try {
        if (image != nullptr) flatten(slot, *image, cancelled);
        tidy(slot, cancelled);
      } catch (const std::exception&) {
        // No memory or descriptor to be had, or the machine goes. Its image is what it was.
      }
    }
  });
}

void GuestMemory::flatten(uint32_t slot, const Image& image, const std::atomic<bool>& cancelled) {
  std::shared_ptr<const Image> flat = flattened(image, cancelled);
  if (flat == nullptr) return;
  // It may have been frozen again meanwhile, or reset to another image, or be another region.
  while (!cancelled) {
    std::shared_ptr<const Image> now;
    {
      std::shared_lock lock(mutex_);
      const Region* region = find_or_null(slot);
      if (region != nullptr) now = region->image();
    }
    if (now == nullptr || now->regions() != image.regions()) return;
    auto fresh = rebased(*now, image, *flat);
    // Dropped behind the lock.
    Region::Outdated outdated;
    std::unique_lock lock(mutex_);
    Region* region = find_or_null(slot);
    if (region == nullptr) return;
    if (region->image() != now) continue;
    outdated = region->move_to(std::move(fresh), *flat);
    lock.unlock();
    return;
  }
}

void GuestMemory::require_whole() const {
  std::shared_lock lock(mutex_);
  for (const auto& region : regions_) {
    if (region->image() != nullptr) region->image()->require_whole();
  }
}

bool GuestMemory::is_cold() const {
  std::shared_lock lock(mutex_);
  return std::any_of(regions_.begin(), regions_.end(),
                     [](const auto& region) { return region->is_cold(); });
}

// A vCPU that faults in a piece while that is taken out waits for it: some 150 µs.
void GuestMemory::loosen() {
  for (size_t index = 0;; index++) {
    for (uint64_t offset = 0;; offset += kGranule) {
      std::shared_lock lock(mutex_);
      if (held_ || index >= regions_.size()) return;
      uint64_t size = regions_[index]->spec().size;
      if (offset >= size) break;
      regions_[index]->loosen(offset, std::min(kGranule, size - offset));
    }
  }
}

FrozenMemory GuestMemory::freeze(bool late) {
  settle();
  std::unique_lock lock(mutex_);
  FrozenMemory memory;
  auto late_freeze = std::make_shared<LateFreeze>([this] { finish_late(); });
  try {
    freeze_regions(memory, late);
  } catch (...) {
    // Of those that come before the one that failed: each is what it was, frozen or not.
    std::optional<Error> failure = current_error();
    end_late(failure);
    for (const auto& region : regions_) region->set_origin(nullptr);
    throw Error(*failure);
  }
  for (const auto& region : regions_) region->set_origin(memory.image);
  bool left = std::any_of(regions_.begin(), regions_.end(),
                          [](const auto& region) { return region->has_late_copy(); });
  if (left) {
    memory.late = std::move(late_freeze);
    std::lock_guard late_lock(late_mutex_);
    late_ = memory.late;
  } else {
    flatten_if_deep();
  }
  return memory;
}

void GuestMemory::freeze_regions(FrozenMemory& memory, bool late) {
  std::vector<std::shared_ptr<const Image>> images;
  images.reserve(regions_.size());
  memory.views.reserve(regions_.size());
  for (const auto& region : regions_) {
    FrozenRegion frozen = region->freeze(late);
    images.push_back(std::move(frozen.image));
    if (frozen.view != nullptr) memory.views.push_back(std::move(frozen.view));
  }
  memory.image = images.size() == 1 ? images[0] : Image::joined(images);
}

void GuestMemory::hold_mappings(bool held) {
  std::unique_lock lock(mutex_);
  held_ = held;
}

// A granule at a time: who freezes waits for one at most.
void GuestMemory::tidy(uint32_t slot, const std::atomic<bool>& cancelled) {
  Userfault userfault(WriteFault::Sync);
  for (uint64_t offset = 0; !cancelled; offset += kGranule) {
    uint8_t* host = nullptr;
    uint64_t size = 0;
    {
      std::shared_lock lock(mutex_);
      const Region* region = find_or_null(slot);
      if (region == nullptr || offset >= region->spec().size) return;
      if (!region->is_cut_up(offset)) continue;
      host = region->host() + offset;
      size = std::min(kGranule, region->spec().size - offset);
    }
    // To protect a page that is not there leaves a mark in its place, which a scan takes for a page
    // that was swapped out. Without the lock: should it be unmapped meanwhile, that is an error, or
    // does no harm.
    if (::madvise(host, size, MADV_POPULATE_READ) < 0) throw_system("madvise");
    {
      std::unique_lock lock(mutex_);
      Region* region = find_or_null(slot);
      if (region == nullptr || region->host() + offset != host) return;
      if (held_ || region->image() == nullptr || region->has_late_copy()) return;
      region->tidy(offset, userfault);
    }
    std::this_thread::sleep_for(kBetweenGranules);
  }
}

std::vector<GpaRange> GuestMemory::reset(const std::shared_ptr<const Image>& image) {
  settle();
  std::unique_lock lock(mutex_);
  for (const auto& region : regions_) require_covered(*image, region->spec());
  std::vector<GpaRange> written;
  for (const auto& region : regions_) region->reset(image, written);
  return written;
}

void GuestMemory::map_anew(const std::shared_ptr<const Image>& image) {
  settle();
  std::unique_lock lock(mutex_);
  for (const auto& region : regions_) require_covered(*image, region->spec());
  for (const auto& region : regions_) region->map_anew(image);
}

void GuestMemory::take_host_writes(uint32_t slot, std::span<uint64_t> bitmap) {
  std::shared_lock lock(mutex_);
  find(slot).take_host_writes(bitmap);
}

void GuestMemory::join_host_writes(uint32_t slot, std::span<uint64_t> bitmap) const {
  std::shared_lock lock(mutex_);
  find(slot).join_host_writes(bitmap);
}

void GuestMemory::forget_host_writes(uint32_t slot, uint64_t first_page,
                                     std::span<const uint64_t> bitmap) {
  std::shared_lock lock(mutex_);
  find(slot).forget_host_writes(first_page / 64, bitmap);
}

void GuestMemory::mark_host_writes(uint32_t slot, uint64_t first_page,
                                   std::span<const uint64_t> bitmap) {
  std::shared_lock lock(mutex_);
  find(slot).mark_host_writes(first_page / 64, bitmap);
}

std::vector<GuestMemory::Piece> GuestMemory::pieces(uint64_t gpa, uint64_t length) const {
  std::vector<Piece> pieces;
  uint64_t at = gpa, left = length;
  for (const auto& region : regions_) {
    const RegionSpec& spec = region->spec();
    if (at < spec.gpa || at >= spec.end() || left == 0) continue;
    uint64_t offset = at - spec.gpa;
    uint64_t here = std::min(left, spec.size - offset);
    pieces.push_back({region.get(), offset, here});
    at += here;
    left -= here;
  }
  if (left > 0) {
    throw Error("ERR_GUEST_ADDRESS", "guest memory " + hex(gpa) + " + " + hex(length) +
                                         " is not (wholly) RAM: see the machine's regions");
  }
  return pieces;
}

Region* GuestMemory::find_or_null(uint32_t slot) const {
  for (const auto& region : regions_) {
    if (region->spec().slot == slot) return region.get();
  }
  return nullptr;
}

Region& GuestMemory::find(uint32_t slot) const {
  if (Region* region = find_or_null(slot)) return *region;
  throw Error("ERR_INVALID_ARGUMENT", "there is no memory slot " + std::to_string(slot));
}

}  // namespace kvmsnap
