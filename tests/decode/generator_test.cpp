// One position at a time against the whole sequence at once; sampling.
#include "deq/decode/generator.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>

namespace deq {
namespace {

using at::Tensor;

ModelOptions small_model(NormPlace norm, int64_t window) {
  Transformer cell;
  cell.width = 12;
  cell.heads = 3;
  cell.inner = 20;
  cell.norm = norm;
  cell.window = window;
  ModelOptions options;
  options.cell = cell;
  options.init_std =
      0.5;  // about 1.7 / sqrt(width): small weights make a post-norm f nearly the identity
  options.embedding_init_std = 0.3;
  return options;
}

class OneByOne : public ::testing::TestWithParam<std::tuple<NormPlace, int64_t>> {};

TEST_P(OneByOne, IsTheWholeSequenceAtOnce) {
  at::manual_seed(4);
  constexpr double kTolerance = 1e-7;
  LanguageModel model(small_model(std::get<0>(GetParam()), std::get<1>(GetParam())), 17);
  model.to(at::kDouble);
  model.eval();
  EquilibriumOptions equilibrium;
  equilibrium.solver = Anderson{.scope = Scope::Causal};
  equilibrium.stop = {.max_steps = 300, .rel_tol = kTolerance};
  std::vector<int64_t> tokens;
  for (int64_t i = 0; i < 15; ++i) tokens.push_back((i * 5 + 3) % 17);

  c10::NoGradGuard no_tape;
  ForwardOptions how;
  how.equilibrium = equilibrium;
  const ModelOutput whole = model.forward(at::tensor(tokens, at::kLong).unsqueeze(0), {}, how);
  ASSERT_TRUE(whole.report.converged()) << describe(whole.report);

  TextGenerator generator(model, equilibrium, 100);
  generator.feed({tokens.begin(), tokens.begin() + 6});
  for (size_t i = 6; i < tokens.size(); ++i) generator.feed({tokens[i]});
  const Tensor one_by_one = generator.history().z;
  ASSERT_EQ(one_by_one.sizes(), whole.z.sizes());
  const Tensor error = (one_by_one - whole.z).norm(2, {2}) / whole.z.norm(2, {2});
  EXPECT_LT(error.max().item<double>(), 10 * kTolerance);
  const Tensor last = model.log_probabilities(whole.z).select(1, 14).view({-1});
  EXPECT_LT((generator.log_probabilities() - last).abs().max().item<double>(), 1e-5);
}

// Pre-published with every key in view has no equilibrium that any solver reaches from these
// weights.
INSTANTIATE_TEST_SUITE_P(Cells, OneByOne,
                         ::testing::Values(std::tuple(NormPlace::Post, 0),
                                           std::tuple(NormPlace::Post, 4),
                                           std::tuple(NormPlace::PrePublished, 4)));

TEST(TextGenerator, RefusesACellThatIsNotCausal) {
  ModelOptions options = small_model(NormPlace::Post, 0);
  std::get<Transformer>(options.cell).causal = false;
  LanguageModel model(options, 17);
  EXPECT_THROW(TextGenerator(model, {}, 10), Error);
}

TEST(TextGenerator, RepeatsItselfBySeedAndCountsItsWork) {
  at::manual_seed(1);
  LanguageModel model(small_model(NormPlace::Post, 0), 17);
  EquilibriumOptions equilibrium;
  equilibrium.solver = Anderson{.scope = Scope::Causal};
  const auto text = [&](uint64_t seed, int64_t history) {
    TextGenerator generator(model, equilibrium, history);
    at::Generator random = at::make_generator<at::CPUGeneratorImpl>(seed);
    generator.feed({1, 2, 3});
    std::vector<int64_t> tokens;
    for (int i = 0; i < 20; ++i) tokens.push_back(generator.next({}, random));
    EXPECT_EQ(generator.report().tokens, 20);
    EXPECT_GE(generator.report().evaluations, 20);
    EXPECT_LE(generator.history().length(), history);
    return tokens;
  };
  EXPECT_EQ(text(5, 50), text(5, 50));
  EXPECT_NE(text(5, 50), text(6, 50));
  text(5, 0);
}

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
