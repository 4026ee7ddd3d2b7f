// One position at a time against the whole sequence at once.
#include "deq/decode/generator.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>

#include "deq/cells/ntm.h"
#include "deq/cells/recurrent.h"
#include "deq/cells/stack_rnn.h"
#include "deq/cells/tcn.h"
#include "deq/cells/transformer.h"
#include "deq/cells/trellisnet.h"
#include "deq/gradients/unrolled.h"
#include "deq/solvers/anderson.h"
#include "tests/base/scratch.h"

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
  // About 1.7 / sqrt(width): small weights make a post-norm f nearly the identity.
  options.initial = {.init_std = 0.5, .embedding_init_std = 0.3};
  return options;
}

/// Six tokens at once, then one at a time: after each the log-probabilities (T, V) of the whole.
void expect_same_one_by_one(LanguageModel& model, const EquilibriumOptions& equilibrium,
                            const std::vector<int64_t>& tokens, const Tensor& whole,
                            double tolerance) {
  TextGenerator generator(model, equilibrium, 100);
  generator.feed({tokens.begin(), tokens.begin() + 6});
  for (size_t i = 6;; ++i) {
    const Tensor expected = whole[int64_t(i) - 1];
    EXPECT_LT((generator.log_probabilities() - expected).abs().max().item<double>(), tolerance)
        << "token " << i;
    if (i == tokens.size()) break;
    generator.feed({tokens[i]});
  }
}

std::vector<int64_t> some_tokens() {
  std::vector<int64_t> tokens;
  for (int64_t i = 0; i < 15; ++i) tokens.push_back((i * 5 + 3) % 17);
  return tokens;
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
  const std::vector<int64_t> tokens = some_tokens();

  c10::NoGradGuard no_tape;
  ForwardOptions how;
  how.equilibrium = equilibrium;
  const LayerOutput whole = model.forward(at::tensor(tokens, at::kLong).unsqueeze(0), {}, how);
  ASSERT_TRUE(whole.report.converged()) << describe(whole.report);

  expect_same_one_by_one(model, equilibrium, tokens, model.log_probabilities(whole.z)[0], 1e-5);
}

// Pre-published with every key in view has no equilibrium that any solver reaches from these
// weights.
INSTANTIATE_TEST_SUITE_P(Cells, OneByOne,
                         ::testing::Values(std::tuple(NormPlace::Post, 0),
                                           std::tuple(NormPlace::Post, 4),
                                           std::tuple(NormPlace::PrePublished, 4)));

TEST(OneByOne, HoldsForATrellisNet) {
  at::manual_seed(5);
  for (const auto& [kernel, dilation] : {std::pair(2, 1), std::pair(3, 2), std::pair(1, 1)}) {
    ModelOptions options;
    options.cell = TrellisNet{.hidden = 9, .output = 6, .kernel = kernel, .dilation = dilation};
    options.embedding.scaled = false;
    options.initial = {.init_std = 0.3, .embedding_init_std = 0.5};
    LanguageModel model(options, 17);
    model.to(at::kDouble);
    model.eval();
    EquilibriumOptions equilibrium;
    equilibrium.solver = Anderson{.scope = Scope::Causal};
    equilibrium.stop = {.max_steps = 300, .rel_tol = 1e-9};
    c10::NoGradGuard no_tape;
    ForwardOptions how;
    how.equilibrium = equilibrium;
    const LayerOutput whole =
        model.forward(at::tensor(some_tokens(), at::kLong).unsqueeze(0), {}, how);
    ASSERT_TRUE(whole.report.converged()) << describe(whole.report);
    expect_same_one_by_one(model, equilibrium, some_tokens(), model.log_probabilities(whole.z)[0],
                           1e-8);
  }
}

// Each level keeps its own past, so that one token at a time gives what the whole gives, to
// rounding: with shared weights, with untied ones, and for the recurrent networks.
TEST(OneByOne, IsExactForExplicitNetworks) {
  at::manual_seed(6);
  const std::pair<CellOptions, DepthOptions> networks[] = {
      {Transformer{.width = 12, .heads = 3, .inner = 20}, {.depth = 5}},
      {Transformer{.width = 12, .heads = 3, .inner = 20}, {.depth = 3, .tied = false}},
      {Transformer{.width = 12, .heads = 3, .inner = 20},
       {.depth = 3, .tied = false, .injection = false}},
      {TrellisNet{.hidden = 9, .output = 6}, {.depth = 8}},
      {TrellisNet{.hidden = 9, .output = 6, .kernel = 3}, {.depth = 3, .tied = false}},
      {Lstm{{.width = 12}}, {.depth = 2, .tied = false}},
      {Gru{{.width = 12}}, {.depth = 1}},
      {StackRnn{.width = 12, .stack_depth = 9}, {.depth = 2, .tied = false}},
      {Ntm{.width = 12, .slots = 9}, {.depth = 1}},
      {Tcn{.width = 12, .kernel = 3}, {.depth = 3, .tied = false}},
  };
  for (const auto& [cell, depth] : networks) {
    ModelOptions options;
    options.cell = cell;
    options.depth = depth;
    options.initial = {.init_std = 0.4, .embedding_init_std = 0.3};
    LanguageModel model(options, 17);
    model.to(at::kDouble);
    model.eval();
    c10::NoGradGuard no_tape;
    const LayerOutput whole =
        model.forward(at::tensor(some_tokens(), at::kLong).unsqueeze(0), {}, {});
    EXPECT_EQ(whole.report.evaluations, depth.depth);
    SCOPED_TRACE(cell.name());
    expect_same_one_by_one(model, {}, some_tokens(), model.log_probabilities(whole.z)[0], 1e-12);
  }
}

TEST(TextGenerator, RefusesACellThatIsNotCausal) {
  ModelOptions options = small_model(NormPlace::Post, 0);
  options.cell.get_if<Transformer>()->causal = false;
  LanguageModel model(options, 17);
  EXPECT_THROW(TextGenerator(model, {}, 10), Error);
  options.cell = TrellisNet{.hidden = 4, .output = 8, .causal = false};
  LanguageModel trellis(options, 17);
  EXPECT_SAYS(testing::error_of([&] { TextGenerator(trellis, {}, 10); }), "is not causal");
}

TEST(TextGenerator, SolvesHoweverTheModelWasTrained) {
  LanguageModel model(small_model(NormPlace::Post, 0), 17);
  EquilibriumOptions how;
  how.solver = Anderson{.scope = Scope::Causal};
  how.stop = {.max_steps = 100, .rel_tol = 1e-6};
  TextGenerator implicit(model, how, 30);
  how.gradient = Unrolled{.steps = 2};
  TextGenerator unrolled(model, how, 30);
  for (TextGenerator* generator : {&implicit, &unrolled}) generator->feed({3, 1, 4, 1, 5});
  EXPECT_GT(implicit.report().prompt_evaluations, 2);
  EXPECT_EQ(unrolled.report().prompt_evaluations, implicit.report().prompt_evaluations);
  EXPECT_TRUE(at::equal(unrolled.log_probabilities(), implicit.log_probabilities()));
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
    EXPECT_LE(generator.cache().histories[0].length(), history);
    return tokens;
  };
  EXPECT_EQ(text(5, 50), text(5, 50));
  EXPECT_NE(text(5, 50), text(6, 50));
  text(5, 0);
}

}  // namespace
}  // namespace deq
