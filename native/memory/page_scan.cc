#include "memory/page_scan.h"

#include <fcntl.h>
#include <linux/types.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>

#include "kvm/error.h"
#include "kvm/fd.h"
#include "memory/region_spec.h"

namespace kvmsnap {

namespace {

// include/uapi/linux/fs.h of Linux 6.7, by our own names since Debian 12's header has none of it.
struct ScanRegion {
  __u64 start;
  __u64 end;
  __u64 categories;
};
struct ScanArguments {
  __u64 size;
  __u64 flags;
  __u64 start;
  __u64 end;
  __u64 walk_end;
  __u64 vec;
  __u64 vec_len;
  __u64 max_pages;
  __u64 category_inverted;
  __u64 category_mask;
  __u64 category_anyof_mask;
  __u64 return_mask;
};
constexpr __u64 kIsWritten = 1 << 1;
constexpr __u64 kIsFile = 1 << 2;
constexpr __u64 kIsPresent = 1 << 3;
constexpr __u64 kIsSwapped = 1 << 4;
constexpr __u64 kIsZeroPage = 1 << 5;
constexpr __u64 kProtectMatching = 1 << 0;
constexpr __u64 kCheckWriteProtected = 1 << 1;
constexpr unsigned long kPagemapScan = _IOWR('f', 16, ScanArguments);

// Documentation/admin-guide/mm/pagemap.rst.
constexpr uint64_t kPagemapFileOrShared = uint64_t{1} << 61;
constexpr uint64_t kPagemapSwapped = uint64_t{1} << 62;
constexpr uint64_t kPagemapPresent = uint64_t{1} << 63;

// The process's own, opened once: it stays right for as long as the process does.
int pagemap() {
  static const UniqueFd file(::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
  if (!file) throw Error("ERR_SYSTEM", "/proc/self/pagemap could not be opened", "open", ENOENT);
  return file.get();
}

// False, with errno, when the kernel refuses. `wanted` says which pages and what is done to them.
bool scan_by_ioctl(int fd, const ScanArguments& wanted, uint64_t host, uint64_t size,
                   std::vector<HostRun>& runs) {
  std::array<ScanRegion, 512> found;
  for (uint64_t at = host; at < host + size;) {
    ScanArguments arguments = wanted;
    arguments.size = sizeof arguments;
    arguments.start = at;
    arguments.end = host + size;
    arguments.vec = reinterpret_cast<uintptr_t>(found.data());
    arguments.vec_len = found.size();
    int count = ::ioctl(fd, kPagemapScan, &arguments);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return false;
    for (int i = 0; i < count; i++) append_run(runs, found[i].start, found[i].end);
    at = arguments.walk_end;
  }
  return true;
}

void scan_by_reading(int fd, uint64_t host, uint64_t size, std::vector<HostRun>& runs) {
  std::array<uint64_t, 4096> entries;
  for (uint64_t at = host; at < host + size;) {
    size_t wanted = std::min<uint64_t>(entries.size(), (host + size - at) / kPageSize);
    ssize_t got = ::pread(fd, entries.data(), wanted * sizeof entries[0],
                          static_cast<off_t>(at / kPageSize * sizeof entries[0]));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) throw_system("pread", "/proc/self/pagemap");
    for (size_t i = 0; i < static_cast<size_t>(got) / sizeof entries[0]; i++, at += kPageSize) {
      bool mapped = (entries[i] & (kPagemapPresent | kPagemapSwapped)) != 0;
      if (mapped && (entries[i] & kPagemapFileOrShared) == 0) append_run(runs, at, at + kPageSize);
    }
  }
}

}  // namespace

std::vector<HostRun> scan_private_pages(const uint8_t* host, uint64_t size) {
  static std::atomic<bool> has_ioctl = true;
  constexpr ScanArguments kPrivate = {
      .category_inverted = kIsFile | kIsZeroPage,
      .category_mask = kIsFile | kIsZeroPage,
      .category_anyof_mask = kIsPresent | kIsSwapped,
  };
  int fd = pagemap();
  std::vector<HostRun> runs;
  uint64_t start = reinterpret_cast<uintptr_t>(host);
  if (has_ioctl) {
    if (scan_by_ioctl(fd, kPrivate, start, size, runs)) return runs;
    if (errno != ENOTTY && errno != EINVAL) throw_system("PAGEMAP_SCAN");
    has_ioctl = false;
    runs.clear();
  }
  scan_by_reading(fd, start, size, runs);
  return runs;
}

std::vector<HostRun> take_written_pages(const uint8_t* host, uint64_t size) {
  constexpr ScanArguments kWritten = {
      .flags = kProtectMatching | kCheckWriteProtected,
      .category_mask = kIsWritten,
      .return_mask = kIsWritten,
  };
  int fd = pagemap();
  std::vector<HostRun> runs;
  if (!scan_by_ioctl(fd, kWritten, reinterpret_cast<uintptr_t>(host), size, runs)) {
    throw_system("PAGEMAP_SCAN", "this needs Linux 6.7: use the tracker bitmap");
  }
  return runs;
}

}  // namespace kvmsnap
