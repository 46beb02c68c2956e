// Storage for the kernel's structs that end in a flexible array: a head and `count` entries.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

namespace kvmsnap {

template <typename Head, typename Entry>
class Flexible {
 public:
  explicit Flexible(size_t count) : bytes_(sizeof(Head) + count * sizeof(Entry)) {}
  explicit Flexible(std::span<const Entry> entries) : Flexible(entries.size()) {
    if (!entries.empty()) {
      std::memcpy(bytes_.data() + sizeof(Head), entries.data(), entries.size_bytes());
    }
  }

  // vector<uint8_t> storage comes from operator new, aligned for any of the kernel's structs.
  Head* get() { return reinterpret_cast<Head*>(bytes_.data()); }
  Head* operator->() { return get(); }
  std::vector<Entry> entries(size_t count) const {
    std::vector<Entry> result(count);
    if (count > 0) std::memcpy(result.data(), bytes_.data() + sizeof(Head), count * sizeof(Entry));
    return result;
  }

 private:
  std::vector<uint8_t> bytes_;
};

}  // namespace kvmsnap
