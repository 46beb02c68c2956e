// Where the bytes of an image come from, without holding its files: enough to find out later what
// another image of the same machine's life has changed.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "memory/image.h"

namespace kvmsnap {

/// Files are immutable while they are in an image, so equal (file, offset) means equal bytes. Files
/// are named by BackingFile::id, which is never given twice; what is a copy goes by its original.
class Provenance {
 public:
  explicit Provenance(const Image& image);

  const std::vector<GpaRange>& regions() const { return regions_; }

  /// Whether `image` is of the same descent: made from a memory that this one was made from too.
  /// An image that is all zeros is everyone's ancestor.
  bool related_to(const Image& image) const;

  /// What of `image` may differ from this: maximal ranges inside one region each, ordered by gpa.
  /// Throws ERR_INVALID_ARGUMENT unless the regions are the same.
  std::vector<GpaRange> changed_in(const Image& image) const;

 private:
  struct Source {
    uint64_t gpa = 0;
    uint64_t length = 0;
    uint64_t file = 0;
    uint64_t offset = 0;

    uint64_t end() const { return gpa + length; }
  };

  void add(const Source& source);

  std::vector<GpaRange> regions_;
  /// Ordered by gpa; what lies between them is zeros.
  std::vector<Source> sources_;
  std::vector<uint64_t> lineage_;
};

/// What differs from every one of `marks`: each is of the same bytes, told by other files. Throws
/// ERR_INVALID_ARGUMENT when the regions are not the same, or when none is related to `image`.
std::vector<GpaRange> changed_since(const Image& image,
                                    std::span<const std::shared_ptr<const Provenance>> marks);

}  // namespace kvmsnap
