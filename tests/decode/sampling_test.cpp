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

/// Each token as often as restrict() says, within `deviations` of a binomial's; those that it rules
/// out never.
void expect_drawn_by(const SamplingOptions& options, const Tensor& logs, uint64_t seed) {
  constexpr int kDraws = 20000;
  constexpr double kDeviations = 5;
  const Tensor p = restrict(logs, options).exp();
  at::Generator random = at::make_generator<at::CPUGeneratorImpl>(seed);
  std::vector<int> counts(size_t(p.size(0)));
  for (int i = 0; i < kDraws; ++i) ++counts[size_t(sample(logs, options, random))];
  for (int64_t i = 0; i < p.size(0); ++i) {
    const double expected = p[i].item<double>(), share = counts[size_t(i)] / double(kDraws);
    EXPECT_NEAR(share, expected, kDeviations * std::sqrt(expected * (1 - expected) / kDraws))
        << "token " << i << " at temperature " << options.temperature << ", top_k " << options.top_k
        << ", top_p " << options.top_p;
  }
}

TEST(Sampling, DrawsByWhatRestrictLeaves) {
  const Tensor logs = at::log_softmax(
      2 * at::randn({40}, at::detail::createCPUGenerator(5), at::TensorOptions(at::kDouble)), 0);
  uint64_t seed = 1;
  for (const double temperature : {0.5, 1.0, 1.7}) {
    for (const int64_t top_k : {0, 1, 5, 39, 40, 100}) {
      for (const double top_p : {1.0, 0.9, 0.3, 1e-9}) {
        const SamplingOptions options{.temperature = temperature, .top_k = top_k, .top_p = top_p};
        expect_drawn_by(options, logs, ++seed);
        expect_drawn_by(options, logs.to(at::kFloat), ++seed);
      }
    }
  }
}

TEST(Sampling, OfEquallyLikelyTokensSoManyStay) {
  const Tensor logs = at::zeros({10});
  at::Generator random = at::make_generator<at::CPUGeneratorImpl>(1);
  std::vector<int> counts(10);
  for (int i = 0; i < 400; ++i) ++counts[size_t(sample(logs, {.top_k = 4}, random))];
  for (size_t i = 0; i < 10; ++i) EXPECT_EQ(counts[i] > 0, i < 4) << i;
  EXPECT_EQ(sample(logs, {.greedy = true}, random), 0);
}

TEST(Sampling, TakesOneNumberForEachToken) {
  at::Generator random = at::make_generator<at::CPUGeneratorImpl>(3),
                other = at::make_generator<at::CPUGeneratorImpl>(3);
  const auto next = [](at::Generator& generator) {
    return at::check_generator<at::CPUGeneratorImpl>(generator)->random64();
  };
  sample(at::zeros({10}), {}, random);
  sample(at::zeros({10}), {.top_k = 3, .top_p = 0.5}, random);
  sample(at::zeros({10}), {.greedy = true}, random);
  next(other);
  next(other);
  EXPECT_EQ(next(random), next(other));
}

TEST(Sampling, LogProbabilitiesThatAreNoNumbersAreAnError) {
  at::Generator random = at::make_generator<at::CPUGeneratorImpl>(1);
  const Tensor lost = at::full({5}, NAN), some = at::tensor({0.f, float(NAN), -1.f});
  EXPECT_SAYS(testing::error_of([&] { sample(lost, {}, random); }), "expected finite numbers");
  EXPECT_SAYS(testing::error_of([&] { sample(some, {}, random); }), "expected finite numbers");
  EXPECT_SAYS(testing::error_of([&] { sample(lost, {.greedy = true}, random); }),
              "expected a finite number");
}

}  // namespace
}  // namespace deq
