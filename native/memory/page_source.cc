#include "memory/page_source.h"

#include <vector>

namespace kvmsnap {

void FilePageSource::request(uint32_t id, const GpaRange& range, PageReceiver& receiver) {
  // Requests come from few threads, in blocks of like size.
  thread_local std::vector<uint8_t> buffer;
  buffer.resize(range.size);
  image_->read(range.gpa, buffer);
  receiver.answer(id, buffer);
}

}  // namespace kvmsnap
