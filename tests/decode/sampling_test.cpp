// What may be drawn, and how often it is.
#include "deq/decode/sampling.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>

#include <cmath>

#include "deq/base/error.h"

namespace deq {
namespace {

using at::Tensor;

TEST(Sampling, TopKAndTopPKeepTheLikeliest) {
  const Tensor p = at::tensor({0.05, 0.4, 0.15, 0.3, 0.1}, at::kDouble).log();
  const auto kept = [&](const SamplingOptions& options) {
    return restrict(p, options).exp().gt(0);
  };
  EXPECT_TRUE(at::equal(kept({.top_k = 2}), at::tensor({0, 1, 0, 1, 0}).to(at::kBool)));
  EXPECT_TRUE(at::equal(kept({.top_p = 0.69}), at::tensor({0, 1, 0, 1, 0}).to(at::kBool)));
  EXPECT_TRUE(at::equal(kept({.top_p = 0.71}), at::tensor({0, 1, 1, 1, 0}).to(at::kBool)));
  EXPECT_TRUE(at::equal(kept({.top_p = 0.01}), at::tensor({0, 1, 0, 0, 0}).to(at::kBool)));
  EXPECT_NEAR(restrict(p, {.top_k = 2}).exp().sum().item<double>(), 1, 1e-12);
  const Tensor sharp = restrict(p, {.temperature = 0.5}).exp();
  EXPECT_NEAR((sharp[1] / sharp[3]).item<double>(), 16.0 / 9, 1e-9);
  at::Generator random = at::make_generator<at::CPUGeneratorImpl>(1);
  EXPECT_EQ(sample(p, {.greedy = true}, random), 1);
  EXPECT_THROW(restrict(p, {.temperature = 0}), Error);
}

TEST(Sampling, DrawsByTheProbabilities) {
  const Tensor p = at::tensor({0.1, 0.6, 0.3}, at::kDouble);
  at::Generator random = at::make_generator<at::CPUGeneratorImpl>(9);
  std::vector<int> counts(3);
  constexpr int kDraws = 4000;
  for (int i = 0; i < kDraws; ++i) ++counts[size_t(sample(p.log(), {}, random))];
  for (int64_t i = 0; i < 3; ++i) {
    const double expected = p[i].item<double>();
    EXPECT_NEAR(counts[size_t(i)] / double(kDraws), expected,
                4 * std::sqrt(expected * (1 - expected) / kDraws));
  }
}

}  // namespace
}  // namespace deq
