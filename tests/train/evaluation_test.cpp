// Every number of an evaluation, counted again segment by segment; and that how a model is solved
// there does not hang on how it was trained.
#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>

#include "deq/cells/trellisnet.h"
#include "deq/data/readers.h"
#include "deq/decode/generator.h"
#include "deq/gradients/implicit.h"
#include "deq/gradients/phantom.h"
#include "deq/gradients/unrolled.h"
#include "deq/models/language_model.h"
#include "deq/solvers/anderson.h"
#include "deq/train/evaluate.h"
#include "tests/base/scratch.h"
#include "tests/train/small_run.h"

namespace deq {
namespace {

using at::Tensor;

Split small_split() {
  Tensor tokens = at::empty({151}, at::kLong);
  const std::string text = testing::small_text();
  for (int64_t i = 0; i < tokens.size(0); ++i) tokens[i] = int64_t(uint8_t(text[size_t(i)]));
  return {.tokens = tokens};
}

/// A model whose positions take unequal numbers of steps.
LanguageModel small_model(int64_t depth = 0) {
  ModelOptions options;
  options.cell = TrellisNet{.hidden = 5, .output = 4};
  options.depth.depth = depth;
  options.initial = {.init_std = 0.5, .embedding_init_std = 0.4};
  at::manual_seed(4);
  return LanguageModel(options, 256);
}

EquilibriumOptions solved(int64_t steps, double tolerance) {
  return {.solver = Anderson{.scope = Scope::Causal},
          .stop = {.max_steps = steps, .rel_tol = tolerance}};
}

/// The same by the reader and the model alone.
struct Counted {
  double nats = 0, residuals = 0, worst = 0, converged = 0, unconverged = 0, evaluations = 0;
  int64_t tokens = 0, positions = 0, solves = 0;
};

Counted count(Model& model, const Split& split, const EquilibriumOptions& how,
              const EvaluationOptions& cut) {
  at::NoGradGuard no_tape;
  model.eval();
  EvaluationReader reader(split, {.lanes = cut.lanes, .batch = cut.batch, .length = cut.length});
  Histories histories;
  Counted found;
  while (const auto segment = reader.next()) {
    if (segment->reset) histories.clear();
    ForwardOptions forward{.equilibrium = how, .history = cut.history};
    const LayerOutput output = model.forward(segment->tokens, histories, forward);
    histories = output.histories;
    const Tensor log_p = model.log_probabilities(output.z);
    const Tensor scored = segment->targets.ge(0);
    found.nats -= (log_p.gather(2, segment->targets.clamp_min(0).unsqueeze(2)).squeeze(2) * scored)
                      .sum()
                      .item<double>();
    found.tokens += scored.sum().item<int64_t>();
    found.positions += segment->targets.numel();
    ++found.solves;
    found.evaluations += double(output.report.evaluations);
    if (!output.report.residual.defined()) continue;
    found.residuals += output.report.residual.sum().item<double>();
    found.worst = std::max(found.worst, output.report.residual.max().item<double>());
    const auto done =
        double(output.report.reason.eq(int64_t(Reason::Converged)).sum().item<int64_t>());
    found.converged += done;
    found.unconverged += double(output.report.reason.numel()) - done;
  }
  return found;
}

TEST(Evaluation, IsTheSumOfItsSegments) {
  LanguageModel model = small_model();
  const Split split = small_split();
  const EquilibriumOptions how = solved(5, 5e-3);
  for (const EvaluationOptions& cut :
       {EvaluationOptions{.lanes = 3, .batch = 2, .length = 11, .history = 9},
        EvaluationOptions{.lanes = 1, .batch = 2, .length = 11, .history = 9},
        EvaluationOptions{.lanes = 3, .batch = 2, .length = 5, .history = 9},
        EvaluationOptions{.lanes = 3, .batch = 2, .length = 11, .history = 0}}) {
    const Counted counted = count(model, split, how, cut);
    ASSERT_GT(counted.unconverged, 0);
    ASSERT_GT(counted.converged, 0);
    double share = 0;
    const Evaluation e = evaluate(model, split, how, cut, [&](double done) { share = done; });
    EXPECT_EQ(e.tokens, 150);
    EXPECT_EQ(e.tokens, counted.tokens);
    EXPECT_NEAR(e.loss, counted.nats / 150, 1e-5);
    EXPECT_NEAR(e.mean_residual, counted.residuals / double(counted.positions), 1e-12);
    EXPECT_EQ(e.worst_residual, counted.worst);
    EXPECT_NEAR(e.converged_share, counted.converged / double(counted.positions), 1e-12);
    EXPECT_EQ(double(e.unconverged), counted.unconverged);
    EXPECT_NEAR(e.evaluations, counted.evaluations / double(counted.solves), 1e-12);
    EXPECT_EQ(e.depth, 0);
    EXPECT_EQ(e.answer, 0);
    EXPECT_EQ(share, 1);
  }
}

TEST(Evaluation, InPartsIsAsPreciseAsAtOnce) {
  LanguageModel model = small_model();
  const EquilibriumOptions how = solved(60, 1e-6);
  EvaluationOptions cut{.lanes = 3, .batch = 2, .length = 11, .history = 9};
  const Evaluation whole = evaluate(model, small_split(), how, cut);
  cut.subsequence = 3;
  const Evaluation parts = evaluate(model, small_split(), how, cut);
  EXPECT_NEAR(whole.loss, parts.loss, 1e-4);
  EXPECT_GT(parts.evaluations, 1.5 * whole.evaluations);
}

TEST(Evaluation, OfAnExplicitNetworkHasNoResidual) {
  LanguageModel model = small_model(/*depth=*/3);
  const EvaluationOptions cut{.lanes = 3, .batch = 2, .length = 11, .history = 9};
  const Counted counted = count(model, small_split(), {}, cut);
  const Evaluation e = evaluate(model, small_split(), {}, cut);
  EXPECT_NEAR(e.loss, counted.nats / 150, 1e-5);
  EXPECT_EQ(e.depth, 3);
  EXPECT_EQ(e.evaluations, 3);
}

TEST(Evaluation, TakesItsTime) {
  LanguageModel model = small_model();
  const auto start = std::chrono::steady_clock::now();
  const Evaluation e = evaluate(model, small_split(), solved(5, 5e-3), {.lanes = 3});
  const double whole =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  EXPECT_LE(e.seconds, whole);
  EXPECT_GT(e.seconds, 0.5 * whole);
}

// The worst of all rows is NaN where one is, whatever comes after it.
TEST(Evaluation, NoNumberHidesOneThatIsNotFinite) {
  LanguageModel model = small_model();
  Split split = small_split();
  split.tokens = split.tokens.clone();
  split.tokens[40] = 255;  // no other position has this token
  {
    at::NoGradGuard no_tape;
    Tensor(model.named_parameters()["embedding.table0"])[255].fill_(NAN);
  }
  // One lane without history: only segment 4 of 14 sees it.
  const EvaluationOptions cut{.lanes = 1, .batch = 1, .length = 11, .history = 0};
  const Evaluation e = evaluate(model, split, solved(5, 5e-3), cut);
  EXPECT_FALSE(std::isfinite(e.worst_residual));
  EXPECT_FALSE(std::isfinite(e.mean_residual));
  EXPECT_FALSE(std::isfinite(e.loss));
  EXPECT_GE(e.unconverged, 1);
}

TEST(Evaluation, ALeakThatCannotBeMeasuredIsNoSmallOne) {
  LanguageModel model = small_model();
  Split split = small_split();
  split.tokens = split.tokens.clone();
  split.tokens[14] = 255;  // in the second of three segments
  const EvaluationOptions cut{.lanes = 3, .batch = 2, .length = 11, .history = 0};
  EquilibriumOptions how = solved(5, 5e-3);
  how.solver = Anderson{.scope = Scope::Sample};
  const double leak = measure_leak(model, split, how, cut);
  EXPECT_GT(leak, 0);
  {
    at::NoGradGuard no_tape;
    Tensor(model.named_parameters()["embedding.table0"])[255].fill_(NAN);
  }
  EXPECT_TRUE(std::isnan(measure_leak(model, split, how, cut)));
}

/// Every gradient mode with steps that the solver's stop rule would not take.
std::vector<Gradient> modes() {
  return {Implicit{}, Phantom{.steps = 2}, OneStep{}, Unrolled{.steps = 3, .damping = 0.5},
          Checkpointed{.steps = 3}};
}

TEST(Evaluation, IsSolvedByTheSolverHoweverItWasTrained) {
  LanguageModel model = small_model();
  const EvaluationOptions cut{.lanes = 3, .batch = 2, .length = 11, .history = 9};
  EquilibriumOptions how = solved(9, 1e-4);
  const Evaluation expected = evaluate(model, small_split(), how, cut);
  const double leak = measure_leak(model, small_split(), how, cut);
  for (const Gradient& mode : modes()) {
    how.gradient = mode;
    const Evaluation e = evaluate(model, small_split(), how, cut);
    EXPECT_EQ(e.loss, expected.loss) << mode.name();
    EXPECT_EQ(e.worst_residual, expected.worst_residual) << mode.name();
    EXPECT_EQ(e.evaluations, expected.evaluations) << mode.name();
    EXPECT_EQ(measure_leak(model, small_split(), how, cut), leak) << mode.name();
  }
  how.stop.max_steps = 2;
  EXPECT_LT(evaluate(model, small_split(), how, cut).evaluations, expected.evaluations);
}

TEST(Evaluation, GenerationIsSolvedByTheSolverToo) {
  LanguageModel model = small_model();
  EquilibriumOptions how = solved(9, 1e-4);
  const auto generated = [&] {
    TextGenerator generator(model, how, 20);
    generator.feed({'t', 'h', 'e'});
    auto random = at::detail::createCPUGenerator(1);
    generator.next({}, random);
    return generator.log_probabilities();
  };
  const Tensor expected = generated();
  for (const Gradient& mode : modes()) {
    how.gradient = mode;
    EXPECT_TRUE(at::equal(generated(), expected)) << mode.name();
  }
}

}  // namespace
}  // namespace deq
