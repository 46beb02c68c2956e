#include "memory/backing_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <charconv>
#include <map>
#include <utility>

#include "kvm/error.h"
#include "memory/quiet_thread.h"

namespace kvmsnap {

namespace {

// Files that images were made of, while they are in use. A file that is open keeps its inode
// number from being given to another.
class OpenFiles {
 public:
  // `make` when there is none yet, or what there is had another size or should have had other
  // bytes.
  template <typename Make>
  std::shared_ptr<BackingFile> find_or(const struct stat& info, const ChunkSums* sums,
                                       const Make& make) {
    std::lock_guard lock(mutex_);
    if (files_.size() >= sweep_at_) {
      std::erase_if(files_, [](const auto& entry) { return entry.second.expired(); });
      sweep_at_ = 2 * files_.size() + 64;
    }
    std::weak_ptr<BackingFile>& known = files_[{info.st_dev, info.st_ino}];
    std::shared_ptr<BackingFile> file = known.lock();
    bool same = file != nullptr && file->size() == static_cast<uint64_t>(info.st_size) &&
                same_sums(file->sums(), sums);
    if (!same) {
      file = make();
      known = file;
    }
    return file;
  }

 private:
  static bool same_sums(const ChunkSums* a, const ChunkSums* b) {
    return a == b || (a != nullptr && b != nullptr && *a == *b);
  }

  std::mutex mutex_;
  std::map<std::pair<dev_t, ino_t>, std::weak_ptr<BackingFile>> files_;
  size_t sweep_at_ = 64;
};

std::atomic<uint64_t> next_id = 1;

// Of bytes that have a name. The others are numbered, and will never be so many.
constexpr uint64_t kByDigest = uint64_t{1} << 63;

}  // namespace

uint64_t BackingFile::id_of(std::string_view digest) {
  constexpr size_t kDigits = 16;
  uint64_t value = 0;
  const char* end = digest.data() + digest.size();
  bool parsed =
      digest.size() >= kDigits && std::from_chars(end - kDigits, end, value, 16).ptr == end;
  if (!parsed) throw Error("ERR_INVALID_ARGUMENT", "a digest ends with 16 hexadecimal digits");
  return value | kByDigest;
}

namespace {

// Drops `object` on a thread of its own.
template <typename Object>
void drop_elsewhere(Object* object) {
  std::shared_ptr<Object> last(object);
  try {
    quiet_thread("freeing memory", [last = std::move(last)] {}).detach();
  } catch (...) {
    // No thread to be had: the closure was dropped, and with it the object, here.
  }
}

// The pages of a memfd go with its last descriptor or mapping, at 0.1 to 0.7 µs each: not on the
// event loop, where snapshots are closed.
constexpr blkcnt_t kLargeBlocks = (4 << 20) / 512;

void free_file(BackingFile* file) {
  struct stat info;
  bool large = ::fstat(file->fd(), &info) == 0 && info.st_blocks > kLargeBlocks;
  if (large) return drop_elsewhere(file);
  delete file;
}

}  // namespace

BackingFile::BackingFile(uint64_t id, UniqueFd fd, uint64_t size, bool ours)
    : id_(id), fd_(std::move(fd)), size_(size), ours_(ours) {}

std::shared_ptr<BackingFile> BackingFile::create_memfd(const char* name, uint64_t size) {
  UniqueFd fd(::memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd) throw_system("memfd_create");
  if (::ftruncate(fd.get(), static_cast<off_t>(size)) < 0) throw_system("ftruncate");
  if (::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) < 0) throw_system("F_ADD_SEALS");
  return std::shared_ptr<BackingFile>(
      new BackingFile(next_id.fetch_add(1), std::move(fd), size, true), free_file);
}

void BackingFile::set_sums(std::string_view name, std::shared_ptr<const ChunkSums> sums) {
  name_ = name;
  if (sums == nullptr) return;
  uint64_t chunks = sums->chunk == 0 ? 0 : (size_ + sums->chunk - 1) / sums->chunk;
  if (sums->chunk == 0 || sums->crc32c.size() != chunks) {
    throw Error("ERR_SNAPSHOT_FORMAT", "a memory part does not have one checksum for each chunk");
  }
  sums_ = std::move(sums);
  good_ = std::vector<std::atomic<bool>>(chunks);
}

std::shared_ptr<BackingFile> BackingFile::duplicate(int fd, std::string_view digest,
                                                    std::shared_ptr<const ChunkSums> sums) {
  UniqueFd copy(::fcntl(fd, F_DUPFD_CLOEXEC, 3));
  if (!copy) throw_system("fcntl");
  struct stat info;
  if (::fstat(copy.get(), &info) < 0) throw_system("fstat");
  if (!S_ISREG(info.st_mode)) {
    throw Error("ERR_INVALID_ARGUMENT", "guest memory can only be mapped from a regular file");
  }
  // Never destroyed: threads may still use files when the process ends.
  static OpenFiles& open_files = *new OpenFiles;
  return open_files.find_or(info, sums.get(), [&] {
    uint64_t id = digest.empty() ? next_id.fetch_add(1) : id_of(digest);
    std::shared_ptr<BackingFile> file(
        new BackingFile(id, std::move(copy), static_cast<uint64_t>(info.st_size), false));
    file->set_sums(digest, sums);
    return file;
  });
}

std::shared_ptr<const Mapping> BackingFile::view() const {
  if (!ours_) return nullptr;
  std::lock_guard lock(mutex_);
  std::shared_ptr<const Mapping> view = view_.lock();
  if (view == nullptr) {
    view = std::make_shared<const Mapping>(size_, PROT_READ, MAP_SHARED | MAP_NORESERVE, fd_.get());
    view_ = view;
  }
  return view;
}

std::shared_ptr<const Mapping> BackingFile::lend_view(Mapping mapping) const {
  std::shared_ptr<const Mapping> view(new Mapping(std::move(mapping)), drop_elsewhere<Mapping>);
  std::lock_guard lock(mutex_);
  view_ = view;
  return view;
}

void BackingFile::seal() const {
  if (::fcntl(fd_.get(), F_ADD_SEALS, F_SEAL_FUTURE_WRITE) < 0) throw_system("F_ADD_SEALS");
}

void BackingFile::require_whole() const {
  if (!ours_) require_size(size_);
}

// What was cut off is no hole.
void BackingFile::require_size(uint64_t end) const {
  struct stat info;
  if (::fstat(fd_.get(), &info) < 0) throw_system("fstat");
  if (static_cast<uint64_t>(info.st_size) < end) {
    throw Error("ERR_SNAPSHOT_CORRUPT",
                "a memory file of the snapshot was cut short while it was in use" +
                    (name_.empty() ? "" : ": " + name_));
  }
}

std::optional<uint64_t> BackingFile::next_data(uint64_t offset, uint64_t end) const {
  if (offset >= end) return std::nullopt;
  off_t data = ::lseek(fd_.get(), static_cast<off_t>(offset), SEEK_DATA);
  if (data < 0 && errno != ENXIO) throw_system("lseek");
  if (data < 0) require_size(end);
  if (data < 0 || static_cast<uint64_t>(data) >= end) return std::nullopt;
  return static_cast<uint64_t>(data);
}

}  // namespace kvmsnap
