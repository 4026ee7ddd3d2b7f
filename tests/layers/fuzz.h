// How much random tests draw: DEQ_FUZZ times as much as usual, DEQ_FUZZ_SEED for other numbers.
//   DEQ_FUZZ=1000 DEQ_FUZZ_SEED=7 layers_test --gtest_filter='*Fuzz*:*Random*'
#pragma once

#include <cstdint>
#include <cstdlib>

namespace deq::testing {

inline int64_t fuzz_times() {
  const char* const given = std::getenv("DEQ_FUZZ");
  return given ? std::atoll(given) : 1;
}
/// Of a test that usually begins with `own`.
inline uint64_t fuzz_seed(uint64_t own) {
  const char* const given = std::getenv("DEQ_FUZZ_SEED");
  return given ? own + 1000003 * std::strtoull(given, nullptr, 10) : own;
}

}  // namespace deq::testing
