#include "deq/ops/checksum.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <set>
#include <vector>

namespace {

using deq::ops::checksum;

std::vector<float> numbers(size_t count) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  std::vector<float> found(count);
  for (float& x : found) x = normal(random);
  return found;
}
uint64_t of(const std::vector<float>& x) { return checksum(x.data(), int64_t(4 * x.size())); }

TEST(Checksum, NoticesEveryBit) {
  for (const size_t count : {1, 2, 7, 63, 64, 65, 200}) {
    const std::vector<float> before = numbers(count);
    std::set<uint64_t> seen{of(before)};
    for (size_t bit = 0; bit < 32 * count; ++bit) {
      std::vector<float> after = before;
      uint32_t word;
      std::memcpy(&word, &after[bit / 32], 4);
      word ^= uint32_t(1) << (bit % 32);
      std::memcpy(&after[bit / 32], &word, 4);
      EXPECT_TRUE(seen.insert(of(after)).second) << count << " numbers, bit " << bit;
    }
  }
}

// Changes of a kind that cancel in a plain sum or product: signs, halves, exchanges.
TEST(Checksum, NoticesChangesThatCouldCancel) {
  const std::vector<float> before = numbers(300);
  std::set<uint64_t> seen{of(before)};
  for (size_t i = 0; i < before.size(); ++i) {
    for (size_t j = i + 1; j < before.size(); ++j) {
      std::vector<float> signs = before, exchanged = before;
      signs[i] = -signs[i];
      signs[j] = -signs[j];
      std::swap(exchanged[i], exchanged[j]);
      EXPECT_TRUE(seen.insert(of(signs)).second) << i << " " << j;
      EXPECT_TRUE(seen.insert(of(exchanged)).second) << i << " " << j;
    }
  }
  std::vector<float> negative = before, doubled = before;
  for (float& x : negative) x = -x;
  for (float& x : doubled) x *= 2;
  EXPECT_TRUE(seen.insert(of(negative)).second);
  EXPECT_TRUE(seen.insert(of(doubled)).second);
}

TEST(Checksum, NoticesLengthsAndIsTheSameWhereverItLies) {
  const std::vector<float> zeros(400, 0.f);
  std::set<uint64_t> seen;
  for (int64_t bytes = 0; bytes <= 1600; ++bytes)
    EXPECT_TRUE(seen.insert(checksum(zeros.data(), bytes)).second) << bytes;
  const std::vector<float> x = numbers(100);
  std::vector<char> memory(1000);
  for (size_t offset = 0; offset < 70; ++offset) {
    std::memcpy(memory.data() + offset, x.data(), 400);
    EXPECT_EQ(checksum(memory.data() + offset, 400), of(x));
  }
}

}  // namespace
