// What may be drawn, and how often it is.
#include "deq/decode/sampling.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>

#include <cmath>

#include "deq/base/error.h"
#include "tests/base/scratch.h"

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
  EXPECT_SAYS(testing::error_of([&] { restrict(p, {.temperature = 0}); }),
              "temperature = 0; expected > 0, or --greedy");
  EXPECT_SAYS(testing::error_of([&] { restrict(p, {.temperature = -1}); }),
              "temperature = -1; expected > 0");
}

// However small, it leaves the likeliest token; of equally likely ones each.
TEST(Sampling, ASmallTemperatureLeavesTheLikeliest) {
  const Tensor p = at::tensor({0.05, 0.4, 0.15, 0.4}, at::kDouble).log();
  at::Generator random = at::make_generator<at::CPUGeneratorImpl>(1);
  for (const double temperature : {1e-3, 1e-300, 1e-308, 5e-324}) {
    const Tensor found = restrict(p, {.temperature = temperature}).exp();
    EXPECT_TRUE(at::equal(found, at::tensor({0.0, 0.5, 0.0, 0.5}, at::kDouble))) << temperature;
    EXPECT_EQ(sample(p, {.temperature = temperature}, random) % 2, 1);
  }
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
