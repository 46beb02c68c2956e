#include "test/fuzz/device_fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return kvmsnap::test::fuzz<kvmsnap::Serial>(data, size);
}
