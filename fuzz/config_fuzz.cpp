#include <cstdint>

#include "fuzz/targets.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  deq::fuzz::config({reinterpret_cast<const char*>(data), size});
  return 0;
}
