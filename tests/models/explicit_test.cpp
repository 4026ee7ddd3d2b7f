// Explicit networks and subsequences: the same mathematics as the equilibrium's, another way.
#include "deq/layers/explicit.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "deq/base/memory_meter.h"
#include "deq/cells/recurrent.h"
#include "deq/cells/transformer.h"
#include "deq/cells/trellisnet.h"
#include "deq/gradients/implicit.h"
#include "deq/gradients/unrolled.h"
#include "deq/layers/subsequences.h"
#include "deq/models/language_model.h"
#include "deq/solvers/anderson.h"
#include "deq/solvers/picard.h"
#include "deq/solvers/sweep.h"
#include "tests/base/scratch.h"

namespace deq {
namespace {

using at::Tensor;

LanguageModel make_model(const CellOptions& cell, const DepthOptions& depth = {}) {
  at::manual_seed(21);
  ModelOptions options;
  options.cell = cell;
  options.depth = depth;
  options.initial = {.init_std = 0.4, .embedding_init_std = 0.3};
  LanguageModel model(options, 17);
  model.to(at::kDouble);
  return model;
}

const CellOptions kCells[] = {Transformer{.width = 8, .heads = 2, .inner = 12},
                              TrellisNet{.hidden = 6, .output = 4, .kernel = 3}};

Tensor tokens_of(int64_t batch, int64_t length) {
  return at::randint(17, {batch, length}, at::kLong);
}

std::vector<Tensor> gradients(LanguageModel& model, const Tensor& tokens,
                              const Histories& histories, const ForwardOptions& how) {
  model.zero_grad();
  const Tensor targets = (tokens + 1).remainder(17);
  model.loss(model.forward(tokens, histories, how).z, targets).mean().backward();
  std::vector<Tensor> found;
  for (const Tensor& p : model.parameters()) found.push_back(p.grad().clone());
  return found;
}

double worst_error(const std::vector<Tensor>& found, const std::vector<Tensor>& expected) {
  double worst = 0;
  for (size_t i = 0; i < found.size(); ++i) {
    const double scale = expected[i].norm().item<double>() + 1e-12;
    worst = std::max(worst, (found[i] - expected[i]).norm().item<double>() / scale);
  }
  return worst;
}

// With no history, levels that share weights are the unrolled gradient mode.
TEST(Explicit, TiedLevelsAreTheUnrolledEquilibrium) {
  for (const CellOptions& cell : kCells) {
    const Tensor tokens = tokens_of(2, 7);
    LanguageModel tied = make_model(cell, {.depth = 6});
    LanguageModel unrolled = make_model(cell);
    ForwardOptions how;
    how.equilibrium.gradient = Unrolled{.steps = 6};
    EXPECT_TRUE(at::equal(tied.forward(tokens, {}, {}).z, unrolled.forward(tokens, {}, how).z));
    EXPECT_LT(worst_error(gradients(tied, tokens, {}, {}), gradients(unrolled, tokens, {}, how)),
              1e-14);
  }
}

TEST(Explicit, EachTiedLevelSeesItsStepEmbedding) {
  for (const CellOptions& cell : kCells) {
    LanguageModel model = make_model(cell, {.depth = 3, .step_embedding = true});
    LanguageModel plain = make_model(cell, {.depth = 1});
    const Tensor steps = *model.named_parameters().find("step_embedding");
    ASSERT_EQ(steps.sizes(), at::IntArrayRef({3, model.cell().state_width()}));
    ASSERT_GT(steps.norm().item<double>(), 0.1);
    c10::NoGradGuard no_tape;
    for (const auto& item : plain.named_parameters())
      item.value().set_data(*model.named_parameters().find(item.key()));
    model.eval();
    plain.eval();
    const Tensor tokens = tokens_of(2, 6);
    const Bound f = plain.bind(tokens, {}).front();
    Tensor z = at::zeros({2, 6, model.cell().state_width()}, at::kDouble);
    for (int64_t l = 0; l < 3; ++l) z = f(z + steps[l]);
    EXPECT_LT((model.forward(tokens, {}, {}).z - z).abs().max().item<double>(), 1e-12);
  }
}

TEST(Explicit, StepEmbeddingsLearnAndAreSeenByTheNextSegment) {
  LanguageModel model = make_model(kCells[0], {.depth = 3, .step_embedding = true});
  gradients(model, tokens_of(2, 5), {}, {});
  const Tensor gradient = model.named_parameters().find("step_embedding")->grad();
  for (int64_t l = 0; l < 3; ++l) EXPECT_GT(gradient[l].norm().item<double>(), 0) << l;
  c10::NoGradGuard no_tape;
  model.eval();
  const Tensor tokens = tokens_of(2, 8);
  const Tensor whole = model.forward(tokens, {}, {}).z;
  const LayerOutput first = model.forward(tokens.narrow(1, 0, 5), {}, {.history = 5});
  const Tensor rest = model.forward(tokens.narrow(1, 5, 3), first.histories, {}).z;
  EXPECT_LT((rest - whole.narrow(1, 5, 3)).abs().max().item<double>(), 1e-12);
}

TEST(Explicit, CheckpointedLevelsHaveTheSameGradients) {
  for (const CellOptions& cell : kCells) {
    for (const bool tied : {true, false}) {
      const Tensor tokens = tokens_of(2, 7);
      std::vector<Tensor> expected;
      for (const bool checkpointed : {false, true}) {
        LanguageModel model =
            make_model(cell, {.depth = 7, .tied = tied, .checkpointed = checkpointed});
        ForwardOptions how;
        how.history = 5;
        const LayerOutput first = model.forward(tokens, {}, how);
        ASSERT_EQ(first.histories.size(), 7u);
        const auto found = gradients(model, tokens, first.histories, how);
        if (expected.empty()) expected = found;
        EXPECT_LT(worst_error(found, expected), 1e-13);
      }
    }
  }
}

// Every level sees its own past: two segments are one.
TEST(Explicit, CheckpointedLevelsHoldLessMemory) {
  const Tensor tokens = tokens_of(2, 32);
  double bytes[2];
  for (const bool checkpointed : {false, true}) {
    LanguageModel model = make_model(kCells[0], {.depth = 36, .checkpointed = checkpointed});
    bytes[checkpointed] =
        double(peak_tensor_bytes([&] { gradients(model, tokens, {}, {}); }, at::kCPU));
  }
  EXPECT_LT(bytes[1], 0.6 * bytes[0]);  // 12 of 36 levels' states, and what is around them
}

TEST(Explicit, SegmentsAreOneSequence) {
  for (const CellOptions& cell : kCells) {
    for (const bool tied : {true, false}) {
      LanguageModel model = make_model(cell, {.depth = 5, .tied = tied});
      const Tensor tokens = tokens_of(2, 12);
      ForwardOptions how;
      how.history = 100;
      const Tensor whole = model.forward(tokens, {}, how).z;
      const LayerOutput first = model.forward(tokens.narrow(1, 0, 5), {}, how);
      const LayerOutput rest = model.forward(tokens.narrow(1, 5, 7), first.histories, how);
      EXPECT_LT((rest.z - whole.narrow(1, 5, 7)).abs().max().item<double>(), 1e-12);
    }
  }
}

TEST(Explicit, UntiedLevelsHaveWeightsOfTheirOwn) {
  const int64_t one = make_model(kCells[0]).parameter_count(false);
  EXPECT_EQ(make_model(kCells[0], {.depth = 4, .tied = false}).parameter_count(false), 4 * one);
  EXPECT_EQ(make_model(kCells[0], {.depth = 4}).parameter_count(false), one);
}

TEST(Explicit, WhatDoesNotGoTogetherIsAnError) {
  EXPECT_THROW(make_model(Lstm{{.width = 8}}), Error);                // no equilibrium
  EXPECT_THROW(make_model(Lstm{{.width = 8}}, {.depth = 2}), Error);  // tied, no input
  EXPECT_THROW(make_model(kCells[0], {.injection = false}), Error);   // the same
  EXPECT_NO_THROW(make_model(kCells[0], {.depth = 2, .injection = false}));
  LanguageModel model = make_model(kCells[0], {.depth = 3});
  EXPECT_THROW(model.forward(tokens_of(1, 4), Histories(2), {}), Error);
}

ForwardOptions exact(int64_t subsequence) {
  ForwardOptions how;
  how.history = 4;
  how.subsequence = subsequence;
  how.equilibrium.solver = Anderson{.scope = Scope::Causal};
  how.equilibrium.stop = {.max_steps = 400, .rel_tol = 1e-11};
  how.equilibrium.gradient = Implicit{.stop = {.max_steps = 400, .rel_tol = 1e-11}};
  return how;
}

// The equilibrium of a causal f does not depend on how it is cut, nor do the gradients, which cross
// the cuts; with a tape and in evaluation mode, for parts that divide the segment and that do not.
TEST(Subsequences, FindTheEquilibriumOfTheWhole) {
  for (const CellOptions& cell : kCells) {
    LanguageModel model = make_model(cell);
    const Tensor first = tokens_of(2, 6), tokens = tokens_of(2, 10);
    const Histories histories = model.forward(first, {}, exact(0)).histories;
    const LayerOutput whole = model.forward(tokens, histories, exact(0));
    ASSERT_TRUE(whole.report.converged()) << describe(whole.report);
    const auto expected = gradients(model, tokens, histories, exact(0));
    for (const int64_t length : {1, 3, 5, 10, 50}) {
      const LayerOutput parts = model.forward(tokens, histories, exact(length));
      EXPECT_TRUE(parts.report.converged()) << describe(parts.report);
      EXPECT_EQ(parts.report.residual.sizes(), whole.report.residual.sizes());
      EXPECT_LT(((parts.z - whole.z).norm() / whole.z.norm()).item<double>(), 1e-9);
      EXPECT_LT(worst_error(gradients(model, tokens, histories, exact(length)), expected), 1e-8);
    }
  }
}

TEST(Subsequences, SeeTheDropoutMasksOfTheWhole) {
  Transformer cell{.width = 8, .heads = 2, .inner = 12};
  cell.dropout = {.hidden = 0.3, .attention = 0.3};
  LanguageModel model = make_model(cell);
  model.train();
  c10::NoGradGuard no_tape;
  const Bound f = model.bind(tokens_of(2, 9), {}).front();
  const Tensor z0 = at::zeros({2, 9, 8}, at::kDouble);
  const StopRule stop{.max_steps = 400, .rel_tol = 1e-10};
  const Solver solver = Anderson{.scope = Scope::Causal};
  const Solution whole = solve(f, z0, solver, stop), parts = solve_by_parts(f, z0, 4, solver, stop);
  EXPECT_LT(((parts.z - whole.z).norm() / whole.z.norm()).item<double>(), 1e-7);
}

TEST(Subsequences, WhatStandsBehindAnUnconvergedPartHasNotConverged) {
  LanguageModel model = make_model(kCells[0]);
  c10::NoGradGuard no_tape;
  const Bound f = model.bind(tokens_of(3, 12), {}).front();
  for (const int64_t steps : {1, 6, 12, 20}) {
    const Solution found =
        solve_by_parts(f, at::zeros({3, 12, 8}, at::kDouble), 3, Anderson{.scope = Scope::Causal},
                       {.max_steps = steps, .rel_tol = 1e-4});
    const Tensor converged = found.report.reason.view({3, 12}).eq(int64_t(Reason::Converged));
    EXPECT_TRUE(at::equal(converged, std::get<0>(converged.to(at::kLong).cummin(1)).to(at::kBool)));
  }
}

TEST(Subsequences, LeaveNothingToLearnFromForTheAdjoint) {
  LanguageModel model = make_model(kCells[0]);
  ForwardOptions how = exact(3);
  how.equilibrium.gradient.get_if<Implicit>()->shine = 4;
  EXPECT_THROW(model.forward(tokens_of(1, 6), {}, how), Error);
  how.subsequence = 0;
  EXPECT_NO_THROW(model.forward(tokens_of(1, 6), {}, how));
}

TEST(Subsequences, CountTheEvaluationsOfEveryPart) {
  int64_t calls = 0;
  Bound halves;
  halves.f = [](const Tensor& z) { return 0.5 * z + 1; };
  halves.f.set_part([&](const Tensor&, int64_t, int64_t) -> Map {
    return [&](const Tensor& z) { return ++calls, 0.5 * z + 1; };
  });
  const Solution s = solve_by_parts(halves, at::zeros({1, 6, 2}), 2, Picard{}, {});
  EXPECT_TRUE(s.report.converged());
  EXPECT_GT(calls, 6);
  EXPECT_EQ(s.report.evaluations, calls);
}

TEST(Subsequences, ASweepHasPartsOfItsOwn) {
  LanguageModel model = make_model(kCells[0]);
  ForwardOptions how = exact(3);
  how.equilibrium.solver = Sweep{};
  EXPECT_SAYS(testing::error_of([&] { model.forward(tokens_of(1, 6), {}, how); }),
              "subsequence = 3: solver sweep goes from position to position as it is");
  how.subsequence = 0;
  EXPECT_NO_THROW(model.forward(tokens_of(1, 6), {}, how));
}

TEST(Subsequences, OfNoSamplesAreNone) {
  LanguageModel model = make_model(kCells[0]);
  const LayerOutput found = model.forward(tokens_of(0, 6), {}, exact(3));
  EXPECT_EQ(found.z.sizes(), (std::vector<int64_t>{0, 6, 8}));
  EXPECT_TRUE(found.report.converged());
}

TEST(Subsequences, NeedACausalCell) {
  Transformer cell{.width = 8, .heads = 2, .inner = 12};
  cell.causal = false;
  LanguageModel model = make_model(cell);
  ForwardOptions how;
  how.subsequence = 3;
  EXPECT_THROW(model.forward(tokens_of(1, 6), {}, how), Error);
}

}  // namespace
}  // namespace deq
