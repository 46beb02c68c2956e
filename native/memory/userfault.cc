#include "memory/userfault.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kvm/error.h"
#include "memory/region_spec.h"

namespace kvmsnap {

namespace {

// include/uapi/linux/userfaultfd.h of Linux 6.7; Debian 12's header is older.
constexpr __u64 kFeatureWpUnpopulated = 1 << 13;
constexpr __u64 kFeatureWpAsync = 1 << 15;

constexpr const char* kInstead = "use the tracker bitmap, which every KVM has";
constexpr const char* kInsteadOfMissing = "restore without `paging`, which maps the files";

// Faults come from inside KVM, that is, from kernel mode: without privilege the system call gives
// no descriptor for those, but /dev/userfaultfd does to whom may open it.
UniqueFd open_userfaultfd(const char* instead) {
  UniqueFd fd(static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK)));
  if (fd) return fd;
  int error_number = errno;
  UniqueFd device(::open("/dev/userfaultfd", O_RDWR | O_CLOEXEC));
  if (device) {
    fd = UniqueFd(::ioctl(device.get(), USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK));
    if (fd) return fd;
  }
  errno = error_number;
  throw_system("userfaultfd", std::string("it needs read and write access to /dev/userfaultfd, or "
                                          "vm.unprivileged_userfaultfd = 1; or ") +
                                  instead);
}

__u64 features_of(WriteFault mode) {
  __u64 features =
      UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_HUGETLBFS_SHMEM | kFeatureWpUnpopulated;
  return mode == WriteFault::Async ? features | kFeatureWpAsync : features;
}

}  // namespace

Userfault::Userfault(WriteFault mode) : fd_(open_userfaultfd(kInstead)) {
  uffdio_api api = {.api = UFFD_API, .features = features_of(mode), .ioctls = 0};
  if (::ioctl(fd_.get(), UFFDIO_API, &api) < 0) {
    throw_system("UFFDIO_API", std::string("this needs Linux ") +
                                   (mode == WriteFault::Async ? "6.7" : "6.4") + "; " + kInstead);
  }
}

Userfault::Userfault(MissingFault) : fd_(open_userfaultfd(kInsteadOfMissing)) {
  uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_MISSING_SHMEM, .ioctls = 0};
  if (::ioctl(fd_.get(), UFFDIO_API, &api) < 0) {
    throw_system("UFFDIO_API", std::string("this needs Linux 4.11; ") + kInsteadOfMissing);
  }
}

void Userfault::watch(const uint8_t* host, uint64_t size) const {
  uffdio_register request = {.range = {reinterpret_cast<uintptr_t>(host), size},
                             .mode = UFFDIO_REGISTER_MODE_WP,
                             .ioctls = 0};
  if (::ioctl(fd_.get(), UFFDIO_REGISTER, &request) < 0) {
    throw_system("UFFDIO_REGISTER",
                 "memory mapped from a snapshot's files cannot be watched by uffd-wp: use the "
                 "tracker pagemap, or bitmap");
  }
}

void Userfault::watch_missing(const uint8_t* host, uint64_t size) const {
  uffdio_register request = {.range = {reinterpret_cast<uintptr_t>(host), size},
                             .mode = UFFDIO_REGISTER_MODE_MISSING,
                             .ioctls = 0};
  if (::ioctl(fd_.get(), UFFDIO_REGISTER, &request) < 0) {
    throw_system("UFFDIO_REGISTER", errno == ENOMEM ? "raise vm.max_map_count" : kInsteadOfMissing);
  }
}

void Userfault::forget(const uint8_t* host, uint64_t size) const {
  uffdio_range range = {reinterpret_cast<uintptr_t>(host), size};
  // EINVAL: something else is mapped there by now, and nobody waits for it.
  if (::ioctl(fd_.get(), UFFDIO_UNREGISTER, &range) < 0 && errno != EINVAL) {
    throw_system("UFFDIO_UNREGISTER");
  }
}

void Userfault::protect(uint64_t address, uint64_t size, bool on) const {
  uffdio_writeprotect request = {.range = {address, size},
                                 .mode = on ? __u64{UFFDIO_WRITEPROTECT_MODE_WP} : __u64{0}};
  // EAGAIN: mappings of the process are changing just now.
  while (::ioctl(fd_.get(), UFFDIO_WRITEPROTECT, &request) < 0) {
    if (errno != EAGAIN && errno != EINTR) throw_system("UFFDIO_WRITEPROTECT");
  }
}

namespace {

// `call(done, moved)` does what is left after `done` bytes, page after page, and says in `moved`
// how much of it. The kernel wakes who waits for those.
template <typename Call>
void place(const Userfault& userfault, const char* name, uint8_t* to, uint64_t size, Call call) {
  for (uint64_t done = 0; done < size;) {
    __s64 moved = 0;
    int result = call(done, moved);
    if (moved > 0) done += static_cast<uint64_t>(moved);
    if (result == 0) return;
    switch (errno) {
      // EAGAIN: mappings of the process are changing just now, or a part was done.
      case EAGAIN:
      case EINTR:
        break;
      case EEXIST:
        userfault.wake(to + done, kPageSize);
        done += kPageSize;
        break;
      // ENOENT: not watched any more. ESRCH: the process is ending.
      case ENOENT:
      case ESRCH:
        return;
      default:
        throw_system(name);
    }
  }
}

}  // namespace

void Userfault::copy(uint8_t* to, const uint8_t* from, uint64_t size) const {
  place(*this, "UFFDIO_COPY", to, size, [&](uint64_t done, __s64& moved) {
    uffdio_copy request = {.dst = reinterpret_cast<uintptr_t>(to) + done,
                           .src = reinterpret_cast<uintptr_t>(from) + done,
                           .len = size - done,
                           .mode = 0,
                           .copy = 0};
    int result = ::ioctl(fd_.get(), UFFDIO_COPY, &request);
    moved = request.copy;
    return result;
  });
}

void Userfault::zero(uint8_t* to, uint64_t size) const {
  place(*this, "UFFDIO_ZEROPAGE", to, size, [&](uint64_t done, __s64& moved) {
    uffdio_zeropage request = {
        .range = {reinterpret_cast<uintptr_t>(to) + done, size - done}, .mode = 0, .zeropage = 0};
    int result = ::ioctl(fd_.get(), UFFDIO_ZEROPAGE, &request);
    moved = request.zeropage;
    return result;
  });
}

void Userfault::wake(const uint8_t* host, uint64_t size) const {
  uffdio_range range = {reinterpret_cast<uintptr_t>(host), size};
  // It fails for a range that is not watched only.
  static_cast<void>(::ioctl(fd_.get(), UFFDIO_WAKE, &range));
}

}  // namespace kvmsnap
