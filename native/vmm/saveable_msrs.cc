#include "vmm/saveable_msrs.h"

#include <algorithm>
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

}  // namespace

const std::vector<uint32_t>& saveable_msrs(const VcpuFd& fd) {
  static std::mutex mutex;
  static const std::vector<uint32_t>* saveable = nullptr;
  std::lock_guard lock(mutex);
  if (saveable == nullptr) {
    std::vector<uint32_t> indices = Kvm::instance().msr_index_list();
    if (std::find(indices.begin(), indices.end(), kMsrXss) == indices.end()) {
      indices.push_back(kMsrXss);
    }
    indices = readable(fd, indices);
    std::stable_sort(indices.begin(), indices.end(),
                     [](uint32_t a, uint32_t b) { return order(a) < order(b); });
    saveable = new std::vector<uint32_t>(std::move(indices));
  }
  return *saveable;
}

}  // namespace kvmsnap
