#include "vmm/saveable_msrs.h"

#include <algorithm>
#include <array>
#include <mutex>

#include "kvm/kvm.h"

namespace kvmsnap {

namespace {

std::vector<uint32_t> readable(const VcpuFd& fd, const std::vector<uint32_t>& indices) {
  std::vector<uint32_t> result;
  for (size_t first = 0; first < indices.size();) {
    std::vector<kvm_msr_entry> entries(indices.size() - first);
    for (size_t i = 0; i < entries.size(); i++) entries[i].index = indices[first + i];
    size_t count = fd.msrs(entries);
    for (size_t i = 0; i < count; i++) result.push_back(indices[first + i]);
    // KVM stopped at the one that it cannot read.
    first += count + 1;
  }
  return result;
}

int order(uint32_t index) {
  if (index == kMsrTsc) return 0;
  return index == kMsrTscDeadline ? 2 : 1;
}

bool needs_lapic(uint32_t index) {
  return index == kMsrKvmAsyncPfEn || index == kMsrKvmPvEoiEn || index == kMsrKvmAsyncPfInt ||
         index == kMsrKvmAsyncPfAck;
}

std::vector<uint32_t> find_saveable(const VcpuFd& fd, MsrTraits traits) {
  std::vector<uint32_t> indices = Kvm::instance().msr_index_list();
  if (std::find(indices.begin(), indices.end(), kMsrXss) == indices.end()) {
    indices.push_back(kMsrXss);
  }
  if (!traits.lapic) std::erase_if(indices, needs_lapic);
  if (!traits.xsaves) std::erase(indices, kMsrXss);
  indices = readable(fd, indices);
  std::stable_sort(indices.begin(), indices.end(),
                   [](uint32_t a, uint32_t b) { return order(a) < order(b); });
  return indices;
}

}  // namespace

const std::vector<uint32_t>& saveable_msrs(const VcpuFd& fd, MsrTraits traits) {
  static std::mutex mutex;
  static std::array<const std::vector<uint32_t>*, 4> saveable = {};
  std::lock_guard lock(mutex);
  auto& list = saveable[(traits.lapic ? 1 : 0) + (traits.xsaves ? 2 : 0)];
  if (list == nullptr) list = new std::vector<uint32_t>(find_saveable(fd, traits));
  return *list;
}

}  // namespace kvmsnap
