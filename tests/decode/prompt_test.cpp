// A prompt is read as evaluation reads a text.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "deq/cells/ntm.h"
#include "deq/cells/recurrent.h"
#include "deq/cells/stack_rnn.h"
#include "deq/cells/tcn.h"
#include "deq/cells/transformer.h"
#include "deq/cells/trellisnet.h"
#include "deq/decode/generator.h"
#include "deq/solvers/anderson.h"
#include "deq/train/evaluate.h"
#include "tests/base/scratch.h"

namespace deq {
namespace {

using at::Tensor;

constexpr int64_t kTokens = 41;

std::vector<int64_t> some_tokens() {
  std::vector<int64_t> tokens;
  for (int64_t i = 0; i < kTokens; ++i) tokens.push_back((i * i * 3 + i * 5 + 2) % 17);
  return tokens;
}

struct Network {
  CellOptions cell;
  DepthOptions depth = {};
};

LanguageModel model_of(const Network& network) {
  at::manual_seed(6);
  ModelOptions options;
  options.cell = network.cell;
  options.depth = network.depth;
  options.initial = {.init_std = 0.5, .embedding_init_std = 0.5};
  LanguageModel model(options, 17);
  model.to(at::kDouble);
  return model;
}

class Prompts : public ::testing::TestWithParam<Network> {};

// The tolerance is loose, so that the states depend on how the text was cut.
TEST_P(Prompts, HaveTheLossThatEvaluationSays) {
  LanguageModel model = model_of(GetParam());
  EquilibriumOptions equilibrium;
  equilibrium.solver = Anderson{.scope = Scope::Causal};
  equilibrium.stop = {.max_steps = 50, .rel_tol = 1e-2};
  const std::vector<int64_t> tokens = some_tokens();
  const Split split{.tokens = at::tensor(tokens, at::kLong)};
  const auto evaluated = [&](int64_t length, int64_t history) {
    return evaluate(model, split, equilibrium,
                    {.lanes = 1, .batch = 1, .length = length, .history = history})
        .loss;
  };
  const auto fed = [&](int64_t length, int64_t history, int64_t again) {
    double sum = 0;
    for (int64_t n = 1; n < kTokens; ++n) {
      TextGenerator generator(model, equilibrium, history + length - 1, 1, length);
      const int64_t first = n / 2 / length * length * again;  // the rest in a second call
      if (first > 0) generator.feed({tokens.begin(), tokens.begin() + first});
      generator.feed({tokens.begin() + first, tokens.begin() + n});
      EXPECT_EQ(generator.report().prompt_tokens, n);
      sum -= generator.log_probabilities()[tokens[size_t(n)]].item<double>();
    }
    return sum / double(kTokens - 1);
  };
  for (const auto& [length, history] : {std::pair(7, 5), std::pair(7, 12), std::pair(1, 4)}) {
    const double expected = evaluated(length, history);
    EXPECT_NEAR(fed(length, history, 0), expected, 1e-12) << length << " behind " << history;
    EXPECT_NEAR(fed(length, history, 1), expected, 1e-12) << length << " behind " << history;
  }
  if (GetParam().cell.is<Transformer>()) {
    EXPECT_GT(std::abs(evaluated(7, 5) - evaluated(7, 12)), 1e-9);
  }
  if (GetParam().cell.is<Transformer>() || GetParam().cell.is<TrellisNet>()) {
    EXPECT_NE(evaluated(7, 5), evaluated(kTokens, 0));
  }
}

INSTANTIATE_TEST_SUITE_P(
    Networks, Prompts,
    ::testing::Values(Network{Transformer{.width = 12, .heads = 3, .inner = 20}},
                      Network{Transformer{.width = 12, .heads = 3, .inner = 20}, {.depth = 3}},
                      Network{TrellisNet{.hidden = 9, .output = 6, .kernel = 3}},
                      Network{Lstm{{.width = 12}}, {.depth = 2, .tied = false}},
                      Network{StackRnn{.width = 12, .stack_depth = 9}, {.depth = 1}},
                      Network{Ntm{.width = 12, .slots = 9}, {.depth = 2, .tied = false}},
                      Network{Tcn{.width = 12, .kernel = 3}, {.depth = 2, .tied = false}}));

TEST(Prompt, TextsOfUnequalLengthsAreReadAsEachAlone) {
  LanguageModel model = model_of({Transformer{.width = 12, .heads = 3, .inner = 20}});
  EquilibriumOptions equilibrium;
  equilibrium.solver = Anderson{.scope = Scope::Causal};
  const std::vector<int64_t> tokens = some_tokens();
  const std::vector<int64_t> longer(tokens.begin(), tokens.begin() + 30);
  TextGenerator both(model, equilibrium, 11, 2, 5), one(model, equilibrium, 11, 1, 5);
  both.feed_all({longer, {1, 2, 3}});
  both.feed_all({longer, longer});
  one.feed(longer);
  one.feed(longer);
  EXPECT_LT((both.log_probabilities(0) - one.log_probabilities()).abs().max().item<double>(),
            1e-12);
  EXPECT_LE(both.cache().histories[0].length(), 11);
}

TEST(Prompt, PiecesThatSeeMoreThanTheyMayAreAnError) {
  LanguageModel model = model_of({Transformer{.width = 12, .heads = 3, .inner = 20}});
  EXPECT_SAYS(testing::error_of([&] { TextGenerator(model, {}, 4, 1, 6); }),
              "pieces of 6 positions; expected 0 to 5");
}

}  // namespace
}  // namespace deq
