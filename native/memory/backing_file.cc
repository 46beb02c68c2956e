#include "memory/backing_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "kvm/error.h"

namespace kvmsnap {

std::shared_ptr<BackingFile> BackingFile::create_memfd(const char* name, uint64_t size) {
  UniqueFd fd(::memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd) throw_system("memfd_create");
  if (::ftruncate(fd.get(), static_cast<off_t>(size)) < 0) throw_system("ftruncate");
  if (::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) < 0) throw_system("F_ADD_SEALS");
  return std::shared_ptr<BackingFile>(new BackingFile(std::move(fd), size));
}

std::shared_ptr<BackingFile> BackingFile::duplicate(int fd) {
  UniqueFd copy(::fcntl(fd, F_DUPFD_CLOEXEC, 3));
  if (!copy) throw_system("fcntl");
  struct stat info;
  if (::fstat(copy.get(), &info) < 0) throw_system("fstat");
  if (!S_ISREG(info.st_mode)) {
    throw Error("ERR_INVALID_ARGUMENT", "guest memory can only be mapped from a regular file");
  }
  return std::shared_ptr<BackingFile>(
      new BackingFile(std::move(copy), static_cast<uint64_t>(info.st_size)));
}

void BackingFile::seal() const {
  if (::fcntl(fd_.get(), F_ADD_SEALS, F_SEAL_FUTURE_WRITE) < 0) throw_system("F_ADD_SEALS");
}

bool BackingFile::next_data(uint64_t offset, uint64_t end, uint64_t* start, uint64_t* stop) const {
  if (offset >= end) return false;
  off_t data = ::lseek(fd_.get(), static_cast<off_t>(offset), SEEK_DATA);
  if (data < 0) {
    if (errno == ENXIO) return false;
    throw_system("lseek");
  }
  if (static_cast<uint64_t>(data) >= end) return false;
  off_t hole = ::lseek(fd_.get(), data, SEEK_HOLE);
  if (hole < 0) throw_system("lseek");
  *start = static_cast<uint64_t>(data);
  *stop = std::min(static_cast<uint64_t>(hole), end);
  return true;
}

}  // namespace kvmsnap
