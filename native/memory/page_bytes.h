// Looking at the bytes of a page.
#pragma once

#include <cstdint>
#include <cstring>

#include "memory/region_spec.h"

namespace kvmsnap {

inline bool page_is_zero(const uint8_t* page) {
  // A page whose first byte equals all that follow it, and is zero.
  return page[0] == 0 && std::memcmp(page, page + 1, kPageSize - 1) == 0;
}

}  // namespace kvmsnap
