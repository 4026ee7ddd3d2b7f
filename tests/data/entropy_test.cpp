#include "deq/data/entropy.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/base/scratch.h"

namespace deq {
namespace {

using testing::error_of;

TEST(Entropy, OfTheSplitUnderTheTrainingCounts) {
  const at::Tensor train = at::tensor({0, 0, 0, 1, 1, 2}, at::kLong);
  const at::Tensor split = at::tensor({0, 3}, at::kLong);
  // (3 + 1) / (6 + 4) and (0 + 1) / (6 + 4)
  EXPECT_NEAR(unigram_bits(train, split, 4), -(std::log2(0.4) + std::log2(0.1)) / 2, 1e-12);
  EXPECT_SAYS(error_of([&] { unigram_bits(train, split, 3); }), "token id 3; expected ids below 3");
}

TEST(Entropy, OfEachPositionByItselfWhereItIsScored) {
  const auto split = [](const std::vector<int64_t>& targets) {
    Split made;
    made.targets = at::tensor(targets, at::kLong).view({-1, 2});
    made.tokens = at::zeros_like(made.targets);
    return made;
  };
  const double nats = positional_nats(split({1, -1, 0, 2, 1, 2}), split({1, 2, -1, 0}), 3);
  const double wanted =
      std::log((2 + 1.0 / 3) / 4) + std::log((2 + 1.0 / 3) / 3) + std::log((0 + 1.0 / 3) / 3);
  EXPECT_NEAR(nats, -wanted / 3, 1e-12);
}

}  // namespace
}  // namespace deq
