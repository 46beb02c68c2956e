// Which pages of a mapping were written: since it was mapped, or since they were protected.
#pragma once

#include <cstdint>
#include <vector>

#include "memory/host_runs.h"

namespace kvmsnap {

/// The anonymous pages in [host, host + size), in order, as maximal runs. Pages that were only read
/// are the file's, or the kernel's zero page, and are not among them.
///
/// PAGEMAP_SCAN (Linux 6.7, Documentation/admin-guide/mm/pagemap.rst) where there is one, else
/// /proc/self/pagemap, whose bit 61 cannot tell the zero page: it may give clean pages too.
std::vector<HostRun> scan_private_pages(const uint8_t* host, uint64_t size);

/// The pages in [host, host + size) written since they were protected by a Userfault that is Async,
/// as maximal runs, protected again: reading and protecting a page is one step. Throws ERR_SYSTEM
/// where there is no PAGEMAP_SCAN, or no such protection.
std::vector<HostRun> take_written_pages(const uint8_t* host, uint64_t size);

}  // namespace kvmsnap
