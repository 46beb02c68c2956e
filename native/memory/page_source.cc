#include "memory/page_source.h"

#include <span>

#include "kvm/mapping.h"

namespace kvmsnap {

void FilePageSource::request(uint32_t id, const GpaRange& range, PageReceiver& receiver) {
  // Requests come from few threads, in blocks of like size.
  thread_local Mapping buffer;
  if (buffer.size() < range.size) buffer = Mapping::buffer(range.size);
  std::span<uint8_t> bytes(buffer.get(), range.size);
  image_->read(range.gpa, bytes);
  receiver.answer(id, bytes);
}

}  // namespace kvmsnap
