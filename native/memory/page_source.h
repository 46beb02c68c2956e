// Where the pages of a machine come from that gets them on demand.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "kvm/error.h"
#include "memory/image.h"

namespace kvmsnap {

/// Who asked a source for pages. From any thread.
class PageReceiver {
 public:
  virtual ~PageReceiver() = default;
  /// The answer to request `id`; one that comes too late, or twice, is dropped.
  virtual void answer(uint32_t id, std::span<const uint8_t> bytes) = 0;
  virtual void refuse(uint32_t id, const Error& error) = 0;
};

class PageSource {
 public:
  virtual ~PageSource() = default;
  /// Answers come later, from the thread that JavaScript runs on: that thread must not wait for
  /// them.
  virtual bool answers_later() const = 0;
  /// Asks for whole pages inside one region. The answer goes to `receiver`, which outlives this
  /// call only, or where the source knows to send it. On any thread; throws when it fails at once.
  virtual void request(uint32_t id, const GpaRange& range, PageReceiver& receiver) = 0;
};

/// Reads an image's files.
class FilePageSource final : public PageSource {
 public:
  explicit FilePageSource(std::shared_ptr<const Image> image) : image_(std::move(image)) {}
  bool answers_later() const override { return false; }
  void request(uint32_t id, const GpaRange& range, PageReceiver& receiver) override;

 private:
  std::shared_ptr<const Image> image_;
};

}  // namespace kvmsnap
