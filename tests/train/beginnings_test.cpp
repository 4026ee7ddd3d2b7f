// The loss of the first positions of a text, against the probabilities themselves.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "deq/cells/transformer.h"
#include "deq/cells/trellisnet.h"
#include "deq/models/language_model.h"
#include "deq/solvers/anderson.h"
#include "deq/train/evaluate.h"
#include "tests/base/scratch.h"

namespace deq {
namespace {

using at::Tensor;

LanguageModel small_model(const CellOptions& cell, const DepthOptions& depth) {
  at::manual_seed(2);
  ModelOptions options;
  options.cell = cell;
  options.depth = depth;
  options.output_dropout = 0.5;  // not at evaluation
  options.initial = {.init_std = 0.5, .embedding_init_std = 0.5};
  LanguageModel model(options, 17);
  model.to(at::kDouble);
  return model;
}

Split some_text(int64_t count) { return {.tokens = at::randint(17, {count}, at::kLong)}; }

TEST(Beginnings, AreTheMeanLossesOfTextsWithoutHistory) {
  const std::pair<CellOptions, DepthOptions> networks[] = {
      {Transformer{.width = 12, .heads = 3, .inner = 20}, {}},
      {TrellisNet{.hidden = 9, .output = 6}, {.depth = 3}}};
  for (const auto& [cell, depth] : networks) {
    LanguageModel model = small_model(cell, depth);
    EquilibriumOptions equilibrium;
    equilibrium.solver = Anderson{.scope = Scope::Causal};
    const Split split = some_text(151);
    for (const int64_t length : {40, 20, 8, 1}) {
      constexpr int64_t kPlaces = 7;
      const EvaluationOptions cut{.lanes = 2, .batch = 3, .length = length, .history = 9};
      const auto groups = measure_beginnings(model, split, equilibrium, cut, kPlaces);
      EXPECT_TRUE(model.is_training());
      model.eval();
      std::vector<double> losses(size_t(length), 0);
      for (int64_t i = 0; i < kPlaces; ++i) {
        const Tensor text =
            split.tokens.narrow(0, i * (151 - length - 1) / (kPlaces - 1), length + 1);
        c10::NoGradGuard no_tape;
        const Tensor z = model.forward(text.narrow(0, 0, length).unsqueeze(0), {}, {equilibrium}).z;
        const Tensor log_p = model.log_probabilities(z)[0];
        for (int64_t t = 0; t < length; ++t)
          losses[size_t(t)] -= log_p[t][text[t + 1].item<int64_t>()].item<double>() / kPlaces;
      }
      model.train();
      int64_t next = 1;
      for (const BeginningLoss& group : groups) {
        EXPECT_EQ(group.first, next);
        EXPECT_EQ(group.last, std::min<int64_t>(length, next == 1   ? 1
                                                        : next == 2 ? 8
                                                        : next == 9 ? 32
                                                                    : length));
        double expected = 0;
        for (int64_t p = group.first; p <= group.last; ++p) expected += losses[size_t(p) - 1];
        EXPECT_NEAR(group.loss, expected / double(group.last - group.first + 1), 1e-12);
        next = group.last + 1;
      }
      EXPECT_EQ(next, length + 1);
    }
  }
}

TEST(Beginnings, OfWhatHasNoneAreAnError) {
  LanguageModel model = small_model(Transformer{.width = 12, .heads = 3, .inner = 20}, {});
  const auto refusal = [&](const Split& split, int64_t count) {
    return testing::error_of([&] { measure_beginnings(model, split, {}, {.length = 8}, count); });
  };
  EXPECT_SAYS(refusal(some_text(8), 2), "a text of 8 tokens; expected at least 9");
  EXPECT_SAYS(refusal(some_text(80), 0), "0 beginnings; expected at least one");
  EXPECT_EQ(measure_beginnings(model, some_text(9), {}, {.length = 8}, 1).size(), 2u);
}

}  // namespace
}  // namespace deq
