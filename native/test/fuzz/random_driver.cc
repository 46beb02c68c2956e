// Runs a fuzz target without libFuzzer: on random inputs (`target RUNS SEED`), or on the inputs in
// files (`target FILE...`), such as those that libFuzzer wrote for a crash.
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <random>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

bool parse(const char* text, uint64_t& value) {
  const char* end = text + std::strlen(text);
  return std::from_chars(text, end, value).ptr == end && text != end;
}

void run_random(uint64_t runs, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<uint8_t> input;
  for (uint64_t run = 0; run < runs; ++run) {
    input.resize(random() % 4096);
    for (uint8_t& byte : input) byte = static_cast<uint8_t>(random());
    LLVMFuzzerTestOneInput(input.data(), input.size());
  }
  std::printf("%llu random inputs, seed %llu\n", static_cast<unsigned long long>(runs),
              static_cast<unsigned long long>(seed));
}

bool run_file(const char* path) {
  std::ifstream file(path, std::ios::binary);
  const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
  if (!file) {
    std::fprintf(stderr, "cannot read %s\n", path);
    return false;
  }
  LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  uint64_t runs = 0;
  uint64_t seed = 0;
  if (argc == 3 && parse(argv[1], runs) && parse(argv[2], seed)) {
    run_random(runs, seed);
    return 0;
  }
  if (argc < 2) {
    std::fprintf(stderr, "usage: %s RUNS SEED | %s FILE...\n", argv[0], argv[0]);
    return 2;
  }
  for (int i = 1; i < argc; ++i) {
    if (!run_file(argv[i])) return 1;
  }
  return 0;
}
