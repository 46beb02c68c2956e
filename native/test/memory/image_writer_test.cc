// An image that is laid out and written, read back through an image of the files written.
#include "memory/image_writer.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>

#include "memory/crc32c.h"
#include "test/catch.h"
#include "test/memory/bytes.h"

namespace kvmsnap {

namespace {

using Bytes = std::vector<uint8_t>;

// Good enough to see that the right bytes come in the right order: FNV-1a, four times.
class Fnv final : public Digest {
 public:
  void update(std::span<const uint8_t> bytes) override {
    for (uint8_t byte : bytes) hash_ = (hash_ ^ byte) * 0x100000001b3;
  }
  Sha256 finish() override {
    Sha256 result;
    for (size_t i = 0; i < result.size(); i++) {
      result[i] = static_cast<uint8_t>(hash_ >> 8 * (i % 8));
    }
    return result;
  }

 private:
  uint64_t hash_ = 0xcbf29ce484222325;
};

std::unique_ptr<Digest> make_fnv() { return std::make_unique<Fnv>(); }

UniqueFd new_file() {
  UniqueFd fd(::memfd_create("kvmsnap-part", MFD_CLOEXEC));
  if (!fd) throw_system("memfd_create");
  return fd;
}

UniqueFd copy_of(const UniqueFd& fd) { return UniqueFd(::dup(fd.get())); }

// Two regions, neither a multiple of a granule nor aligned to one; content here and there.
struct Sample {
  std::vector<GpaRange> regions = {{0x1000, 5 * kGranule + 0x3000}, {uint64_t{4} << 30, kGranule}};
  std::vector<Bytes> models;
  std::shared_ptr<const Image> image;

  explicit Sample(Random& random) {
    std::vector<std::shared_ptr<const BackingFile>> files;
    std::vector<Extent> extents;
    for (uint32_t i = 0; i < regions.size(); i++) {
      Bytes model(regions[i].size);
      auto file = BackingFile::create_memfd("kvmsnap-test", regions[i].size);
      for (int run = 0; run < 3; run++) {
        uint64_t page = below(random, regions[i].size / kPageSize);
        uint64_t left = regions[i].size / kPageSize - page;
        Bytes content = random_pages(random, std::min<uint64_t>(left, 1 + below(random, 40)));
        write_all(file->fd(), content.data(), content.size(), page * kPageSize);
        std::copy(content.begin(), content.end(),
                  model.begin() + static_cast<ptrdiff_t>(page * kPageSize));
      }
      files.push_back(std::move(file));
      extents.push_back({.file = i, .gpa = regions[i].gpa, .length = regions[i].size, .offset = 0});
      models.push_back(std::move(model));
    }
    image = std::make_shared<const Image>(regions, std::move(files), std::move(extents));
  }
};

}  // namespace

TEST_CASE("image writer: what is written reads as the image, whatever the size of parts") {
  for (uint64_t seed = 1; seed <= 3; seed++) {
    Random random(seed);
    Sample sample(random);
    for (uint64_t part_size : {uint64_t{1}, kGranule, 2 * kGranule + 5, uint64_t{64} << 20}) {
      INFO("seed " << seed << ", parts of " << part_size);
      ImageLayout layout = lay_out(whole_content(*sample.image), part_size);
      uint64_t limit = std::max(part_size / kGranule * kGranule, kGranule);
      uint64_t total = 0;
      std::vector<UniqueFd> files, kept;
      for (uint64_t size : layout.part_sizes) {
        REQUIRE(size > 0);
        REQUIRE(size <= limit);
        total += size;
        files.push_back(new_file());
        kept.push_back(copy_of(files.back()));
      }
      REQUIRE(total == whole_content(*sample.image).stored_bytes());

      WorkControl control;
      std::atomic<unsigned> progressed = 0;
      control.on_progress = [&] { progressed++; };
      ImageWriter writer(sample.image, layout, std::move(files), make_fnv);
      std::vector<WrittenPart> parts = writer.run(true, control);
      REQUIRE(control.done_bytes == total);
      REQUIRE(progressed >= parts.size());

      std::vector<std::shared_ptr<const BackingFile>> backing;
      for (size_t i = 0; i < parts.size(); i++) {
        backing.push_back(BackingFile::duplicate(kept[i].get()));
        REQUIRE(parts[i].size == layout.part_sizes[i]);
        REQUIRE(backing.back()->size() == parts[i].size);
        // By the other way, which reads the file.
        WorkControl again;
        WrittenPart read = digest_file(kept[i].get(), kChunk, make_fnv, again);
        REQUIRE(read.sha256 == parts[i].sha256);
        REQUIRE(read.crc32c == parts[i].crc32c);
        REQUIRE(read.size == parts[i].size);
        Bytes first(std::min(kChunk, read.size));
        REQUIRE(::pread(kept[i].get(), first.data(), first.size(), 0) ==
                static_cast<ssize_t>(first.size()));
        REQUIRE(crc32c_by_table(first) == read.crc32c[0]);
      }
      Image restored(sample.regions, std::move(backing), layout.extents);
      for (size_t i = 0; i < sample.regions.size(); i++) {
        Bytes read(sample.regions[i].size);
        restored.read(sample.regions[i].gpa, read);
        REQUIRE(read == sample.models[i]);
      }
    }
  }
}

TEST_CASE("image writer: cancelled, without room, or with files too few") {
  Random random(1);
  Sample sample(random);
  ImageLayout layout = lay_out(whole_content(*sample.image), kGranule);
  REQUIRE(layout.part_sizes.size() > 1);
  auto files = [&](auto make) {
    std::vector<UniqueFd> result;
    for (size_t i = 0; i < layout.part_sizes.size(); i++) result.push_back(make());
    return result;
  };
  WorkControl cancelled;
  cancelled.cancelled = true;
  ImageWriter writer(sample.image, layout, files(new_file), make_fnv);
  CHECK(code_of([&] { writer.run(false, cancelled); }) == "ERR_ABORTED");

  // Parts that may not be written: the first failure is told, not that the others were stopped.
  WorkControl control;
  auto read_only = [] { return UniqueFd(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC)); };
  ImageWriter refused(sample.image, layout, files(read_only), make_fnv);
  CHECK(code_of([&] { refused.run(false, control); }) == "ERR_SYSTEM");

  CHECK(code_of([&] { ImageWriter(sample.image, layout, {}, make_fnv); }) ==
        "ERR_INVALID_ARGUMENT");
}

}  // namespace kvmsnap
