// Random numbers that are a pure function of a few integers: the same on every machine and with
// every version of LibTorch, and independent of the global generator.
#pragma once

#include <cstdint>
#include <random>
#include <utility>
#include <vector>

namespace deq {

/// A generator for `key`; generators of different keys are independent streams.
inline std::mt19937_64 random_stream(const std::vector<int64_t>& key) {
  std::vector<uint32_t> words;
  for (const int64_t part : key) {
    words.push_back(uint32_t(uint64_t(part)));
    words.push_back(uint32_t(uint64_t(part) >> 32));
  }
  std::seed_seq seed(words.begin(), words.end());  // the standard defines it to the bit
  return std::mt19937_64(seed);
}

/// In [0, 1), of 53 bits.
inline double uniform(std::mt19937_64& random) { return double(random() >> 11) * 0x1p-53; }

/// A permutation of 0 .. count - 1 (Fisher and Yates). The remainder of 64 bits is uneven by
/// count / 2^64, which nothing can notice; std::shuffle differs between standard libraries.
inline std::vector<int64_t> permutation(int64_t count, std::mt19937_64 random) {
  std::vector<int64_t> order(size_t(count), 0);
  for (int64_t i = 0; i < count; ++i) order[size_t(i)] = i;
  for (int64_t i = count - 1; i > 0; --i) {
    std::swap(order[size_t(i)], order[size_t(random() % uint64_t(i + 1))]);
  }
  return order;
}

}  // namespace deq
