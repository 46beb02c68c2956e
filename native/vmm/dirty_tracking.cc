#include "vmm/dirty_tracking.h"

#include <array>
#include <utility>

#include "memory/tracker_cow.h"
#include "memory/tracker_pagemap.h"
#include "memory/tracker_uffd.h"
#include "vmm/kvm_trackers.h"

namespace kvmsnap {

namespace {

constexpr std::array<std::pair<std::string_view, TrackerKind>, 6> kNames = {{
    {"bitmap", TrackerKind::Bitmap},
    {"bitmap-manual", TrackerKind::BitmapManual},
    {"ring", TrackerKind::Ring},
    {"uffd-wp", TrackerKind::UffdWp},
    {"pagemap", TrackerKind::Pagemap},
    {"cow", TrackerKind::Cow},
}};

std::unique_ptr<Tracker> make_bitmap(const DirtyTracking::Parts& parts,
                                     BitmapTracker::Protect protect) {
  if (parts.rings != nullptr) {
    throw Error("ERR_STATE",
                "the machine was made with a dirty ring, which takes the place of its dirty logs: "
                "track with `ring`, or make it without dirtyRing");
  }
  return std::make_unique<BitmapTracker>(parts.slots, parts.memory, protect);
}

std::unique_ptr<Tracker> make_tracker(TrackerKind kind, const DirtyTracking::Parts& parts) {
  switch (kind) {
    case TrackerKind::Bitmap:
      return make_bitmap(parts, BitmapTracker::Protect::AtRead);
    case TrackerKind::BitmapManual:
      return make_bitmap(parts, BitmapTracker::Protect::Manual);
    case TrackerKind::Ring:
      if (parts.rings == nullptr) {
        throw Error("ERR_STATE",
                    "a dirty ring is made with the machine: make it with dirtyRing: 4096, or track "
                    "with `bitmap`");
      }
      return std::make_unique<RingTracker>(*parts.rings, parts.slots, parts.memory);
    case TrackerKind::UffdWp:
      return std::make_unique<UffdTracker>(parts.memory);
    case TrackerKind::Pagemap:
      return std::make_unique<PagemapTracker>(parts.memory);
    case TrackerKind::Cow:
      return std::make_unique<CowTracker>(parts.memory);
  }
  throw Error("ERR_INVALID_ARGUMENT", "there is no such tracker");
}

}  // namespace

std::optional<TrackerKind> tracker_by_name(std::string_view name) {
  for (const auto& [known, kind] : kNames) {
    if (known == name) return kind;
  }
  return std::nullopt;
}

void DirtyTracking::start(TrackerKind kind, const Parts& parts) {
  require_none("tracking dirty pages");
  failure_.reset();
  found_ = clean_slots(parts.memory);
  tracker_ = make_tracker(kind, parts);
}

DirtyEpoch DirtyTracking::harvest(const GuestMemory& memory) {
  if (tracker_ == nullptr) throw Error("ERR_STATE", "dirty pages are not being tracked");
  if (failure_) throw Error(*failure_);
  DirtyEpoch epoch;
  auto started = std::chrono::steady_clock::now();
  std::vector<DirtySlot> next = clean_slots(memory);
  epoch.slots = std::exchange(found_, std::move(next));
  try {
    tracker_->harvest(epoch.slots);
  } catch (...) {
    // Some pages are marked clean by now, and nobody has been told of them.
    failure_ = current_error();
    throw Error(*failure_);
  }
  epoch.harvest = std::chrono::steady_clock::now() - started;
  epoch.lost = tracker_->take_lost();
  return epoch;
}

void DirtyTracking::stop() {
  if (tracker_ == nullptr) return;
  // Gone even when it could not restore everything.
  std::unique_ptr<Tracker> tracker = std::move(tracker_);
  tracker->stop();
}

void DirtyTracking::require_none(const char* call) const {
  if (tracker_ == nullptr) return;
  throw Error("ERR_STATE", std::string(call) +
                               " is not possible while dirty pages are tracked: leave the loop "
                               "over vm.dirty() first");
}

void DirtyTracking::before_remap() {
  try {
    tracker_->before_remap(found_);
  } catch (...) {
    failure_ = current_error();
  }
}

void DirtyTracking::after_remap(GuestMemory& memory) {
  try {
    tracker_->after_remap();
    // What the VMM wrote while nobody watched.
    join_host_writes(memory, found_);
  } catch (...) {
    failure_ = current_error();
  }
}

}  // namespace kvmsnap
