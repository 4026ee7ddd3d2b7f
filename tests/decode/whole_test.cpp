// A text that is solved again for each character: the same answers from where it stood as from the
// start, in fewer evaluations; only the latest positions are seen, and nothing that follows.
#include "deq/decode/whole.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include <cmath>

#include "deq/cells/transformer.h"
#include "deq/cells/trellisnet.h"
#include "deq/solvers/anderson.h"
#include "tests/base/scratch.h"

namespace deq {
namespace {

using at::Tensor;

constexpr int64_t kHole = 9;

class WholeTextTest : public ::testing::TestWithParam<CellOptions> {
 protected:
  WholeTextTest() {
    at::manual_seed(5);
    ModelOptions options{.cell = GetParam(),
                         .initial = {.init_std = 0.4, .embedding_init_std = 0.5}};
    options.embedding.tie_weights = false;
    model = std::make_shared<Model>(options, Vocabularies{10, 9});
    model->to(at::kDouble);
    model->eval();
    equilibrium.solver = Anderson{.scope = Scope::Sample};
    equilibrium.stop = {.max_steps = 200, .rel_tol = 1e-9};
  }

  /// log p behind these inputs, by the model itself.
  Tensor plain(std::vector<int64_t> inputs) {
    const c10::NoGradGuard no_tape;
    inputs.push_back(kHole);
    const Tensor z =
        model->forward(at::tensor(inputs, at::kLong).unsqueeze(0), {}, {equilibrium}).z;
    return model->log_probabilities(z)[0][-1];
  }

  std::shared_ptr<Model> model;
  EquilibriumOptions equilibrium;
};

TEST_P(WholeTextTest, FromWhereItStoodIsWhatFromTheStartIs) {
  WholeText warm(*model, equilibrium, {.hole = kHole, .length = 6});
  WholeText cold(*model, equilibrium, {.hole = kHole, .length = 6, .warm = false});
  std::vector<int64_t> text;
  for (int64_t t = 0; t < 20; ++t) {
    text.push_back((t * t + 3) % 9);
    warm.feed({text.back()});
    cold.feed({text.back()});
    const std::vector<int64_t> seen(text.end() - std::min<int64_t>(5, t + 1), text.end());
    const Tensor expected = plain(seen), found = warm.next();
    EXPECT_TRUE(at::equal(cold.next(), expected)) << t;
    EXPECT_LT((found - expected).abs().max().item<double>(), 1e-6) << t;
    EXPECT_NEAR(found.exp().sum().item<double>(), 1, 1e-9);
  }
  for (const WholeReport& report : {warm.report(), cold.report()}) {
    EXPECT_EQ(report.solves, 20);
    EXPECT_EQ(report.converged, 20);
    EXPECT_EQ(report.positions, 2 + 3 + 4 + 5 + 16 * 6);
    EXPECT_GT(report.worst_residual, 0);
    EXPECT_LE(report.worst_residual, 1e-9);
  }
  EXPECT_LT(warm.report().evaluations, cold.report().evaluations);
}

// Several characters at once, more than are seen: nothing of the state before is left.
TEST_P(WholeTextTest, ManyMayFollowAtOnce) {
  WholeText whole(*model, equilibrium, {.hole = kHole, .length = 4});
  whole.feed({1, 2});
  whole.next();
  whole.feed({3, 4, 5, 6, 7, 8});
  EXPECT_LT((whole.next() - plain({6, 7, 8})).abs().max().item<double>(), 1e-6);
  whole.feed({1, 2});
  EXPECT_LT((whole.next() - plain({8, 1, 2})).abs().max().item<double>(), 1e-6);
  EXPECT_EQ(whole.report().converged, 3);
}

TEST_P(WholeTextTest, WhatDoesNotConvergeIsCounted) {
  equilibrium.stop.max_steps = 1;
  WholeText whole(*model, equilibrium, {.hole = kHole, .length = 4});
  whole.feed({1, 2});
  whole.next();
  EXPECT_EQ(whole.report().converged, 0);
  EXPECT_GT(whole.report().worst_residual, 1e-6);
}

TEST_P(WholeTextTest, AnExplicitNetworkHasNoResidual) {
  ModelOptions options{.cell = GetParam()};
  options.embedding.tie_weights = false;
  options.depth.depth = 2;
  Model network(options, Vocabularies{10, 9});
  network.eval();
  WholeText whole(network, equilibrium, {.hole = kHole, .length = 4});
  whole.feed({1, 2});
  whole.next();
  EXPECT_EQ(whole.report().converged, 0);
  EXPECT_TRUE(std::isinf(whole.report().worst_residual));
}

TEST_P(WholeTextTest, RefusesWhatDoesNotFit) {
  const auto refusal = [&](WholeOptions options) {
    return testing::error_of([&] { WholeText(*model, equilibrium, options); });
  };
  EXPECT_SAYS(refusal({.hole = kHole, .length = 1}), "pieces of 1 positions; expected 2 or more");
  EXPECT_SAYS(refusal({.hole = 10}), "hole = 10; expected an input, 0 to 9");
  model->train();
  EXPECT_SAYS(refusal({.hole = kHole, .length = 4}), "training mode");
}

INSTANTIATE_TEST_SUITE_P(
    Cells, WholeTextTest,
    ::testing::Values(CellOptions(Transformer{
                          .width = 8, .heads = 2, .inner = 12, .causal = false}),
                      CellOptions(TrellisNet{.hidden = 5, .output = 3, .causal = false})),
    [](const auto& info) { return std::string(info.param.name()); });

}  // namespace
}  // namespace deq
