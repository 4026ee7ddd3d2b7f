// Training goes on from its state to the same bits; what the report says is what happened.
#include "deq/train/trainer.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "deq/cells/recurrent.h"
#include "deq/cells/transformer.h"
#include "deq/cells/trellisnet.h"
#include "deq/solvers/anderson.h"
#include "deq/tasks/bytes.h"
#include "tests/base/scratch.h"
#include "tests/train/small_run.h"

namespace deq {
namespace {

using at::Tensor;

Corpus small_corpus() {
  static const testing::Scratch scratch;
  testing::spill(scratch / "text.txt", testing::small_text());
  return Bytes{}.load(scratch / "text.txt");
}

NamedTensors copy_of(const NamedTensors& state) {
  NamedTensors copy;
  for (const auto& [name, tensor] : state) copy[name] = tensor.clone();
  return copy;
}

void expect_the_same_bits_after_resuming(const TrainOptions& options, const Corpus& corpus) {
  Trainer whole(options, corpus);
  std::vector<double> losses;
  NamedTensors state;
  for (int step = 0; step < 10; ++step) {
    if (step == 5) state = copy_of(whole.state());
    losses.push_back(whole.step().loss);
  }
  Trainer resumed(options, corpus);
  resumed.step();  // whatever it did before is replaced
  resumed.restore(state);
  EXPECT_EQ(resumed.steps_done(), 5);
  for (int step = 5; step < 10; ++step)
    EXPECT_EQ(resumed.step().loss, losses[size_t(step)]) << step;
  for (const auto& [name, tensor] : named_tensors(whole.model())) {
    EXPECT_TRUE(at::equal(tensor, named_tensors(resumed.model()).at(name))) << name;
  }
}

TEST(Trainer, GoesOnFromItsStateToTheSameBits) {
  expect_the_same_bits_after_resuming(testing::small_options(), small_corpus());
  TrainOptions copying = testing::small_copy_options();
  copying.loop.batch.batch = 9;  // 11 segments an epoch, two a step: it ends within step 6
  expect_the_same_bits_after_resuming(copying, load(copying.task, ""));
}

TEST(Trainer, GoesOnToTheSameBitsWithAnyNetwork) {
  TrainOptions trellis = testing::small_options();
  TrellisNet cell{.hidden = 7, .output = 5};
  cell.dropout = {.hidden = 0.1, .weight = 0.2};
  trellis.model.cell = cell;
  trellis.model.embedding.dropout = 0.1;
  trellis.model.mixture = {.experts = 2, .dropout = 0.1};
  trellis.loop.batch.subsequence = 5;
  expect_the_same_bits_after_resuming(trellis, small_corpus());
  TrainOptions stack = testing::small_options();
  stack.model.depth = {.depth = 3, .tied = false, .checkpointed = true};
  expect_the_same_bits_after_resuming(stack, small_corpus());
  TrainOptions recurrent = testing::small_options();
  recurrent.model.cell = Lstm{{.width = 12, .dropout = 0.1}};
  recurrent.model.depth = {.depth = 2, .tied = false};
  expect_the_same_bits_after_resuming(recurrent, small_corpus());
}

// Narrow rows are often dropped whole: they are zero then, not 0 / 0.
TEST(Trainer, DroppedWeightsLeaveNumbers) {
  TrainOptions options = testing::small_options();
  TrellisNet cell{.hidden = 5, .output = 3};
  cell.dropout.weight = 0.5;
  options.model.cell = cell;
  Trainer trainer(options, small_corpus());
  for (int step = 0; step < 8; ++step) EXPECT_TRUE(trainer.step().finite) << step;
}

TEST(Trainer, IsRepeatableAndDependsOnItsSeed) {
  TrainOptions options = testing::small_options();
  const auto loss_after = [&] {
    Trainer trainer(options, small_corpus());
    for (int step = 0; step < 3; ++step) trainer.step();
    return trainer.step().loss;
  };
  const double first = loss_after();
  EXPECT_EQ(loss_after(), first);
  options.loop.run.seed = 2;
  EXPECT_NE(loss_after(), first);
}

TEST(Trainer, LearnsSmallText) {
  TrainOptions options = testing::small_options();
  options.loop.stability = {.pretrain_steps = 5};
  options.loop.optimization.schedule.rate = 5e-3;
  options.loop.limits.steps = 60;
  options.model.cell.get_if<Transformer>()->dropout = {};
  options.model.input_dropout = options.model.output_dropout = 0;
  Trainer trainer(options, small_corpus());
  const double before = trainer.evaluate_valid().loss;
  for (int step = 0; step < 60; ++step) trainer.step();
  const Evaluation after = trainer.evaluate_valid();
  EXPECT_LT(after.loss, 0.6 * before);
  EXPECT_GT(after.converged_share, 0.5);
}

TEST(Evaluation, CountsEveryTargetAndDoesNotDependOnTheBatch) {
  TrainOptions options = testing::small_options();
  Trainer trainer(options, small_corpus());
  for (int step = 0; step < 4; ++step) trainer.step();
  const Evaluation four = trainer.evaluate_valid();
  EXPECT_EQ(four.tokens, trainer.corpus().valid.tokens.size(0) - 1);
  for (const int64_t batch : {1, 2, 3}) {
    EvaluationOptions other = options.eval;
    other.batch = batch;
    const Evaluation e =
        evaluate(trainer.model(), trainer.corpus().valid, options.equilibrium, other);
    EXPECT_EQ(e.tokens, four.tokens);
    EXPECT_NEAR(e.loss, four.loss, 1e-5) << batch;
  }
  EXPECT_TRUE(trainer.model().is_training());
}

TEST(Evaluation, LeaksNothingByPositionAndSomethingBySample) {
  TrainOptions options = testing::small_options();
  options.model.initial.init_std = 0.5;
  Trainer trainer(options, small_corpus());
  for (int step = 0; step < 8; ++step) trainer.step();
  EquilibriumOptions equilibrium = options.equilibrium;
  equilibrium.stop = {.max_steps = 30, .rel_tol = 1e-2};
  for (const Scope scope : {Scope::Causal, Scope::Position, Scope::Sample}) {
    equilibrium.solver = Anderson{.scope = scope};
    const double leak =
        measure_leak(trainer.model(), trainer.corpus().valid, equilibrium, options.eval);
    if (scope == Scope::Sample) {
      EXPECT_GT(leak, 0);
    } else {
      EXPECT_EQ(leak, 0);
    }
  }
}

TEST(Trainer, AStateThatDoesNotFitIsAnError) {
  const TrainOptions options = testing::small_options();
  Trainer trainer(options, small_corpus());
  NamedTensors state = copy_of(trainer.state());
  state.erase("random");
  EXPECT_THROW(trainer.restore(state), Error);
  TrainOptions wider = options;
  wider.model.cell.get_if<Transformer>()->width = 32;
  Trainer other(wider, small_corpus());
  EXPECT_THROW(other.restore(copy_of(trainer.state())), Error);
}

TEST(Schedule, WarmsUpAndDecaysWithoutAJump) {
  for (const Decay decay : {Decay(CosineDecay{}), Decay(ConstantDecay{}),
                            Decay(InverseSquareRootDecay{}), Decay(PlateauDecay{})}) {
    const Schedule schedule({.rate = 2.0, .warmup = 10, .decay = decay}, 100);
    EXPECT_NEAR(schedule.rate(5), 1.0, 1e-12);
    EXPECT_NEAR(schedule.rate(10), 2.0, 1e-12);
    for (int64_t step = 10; step < 100; ++step) {
      EXPECT_LE(schedule.rate(step + 1), schedule.rate(step));
      EXPECT_GT(schedule.rate(step + 1), 0.94 * schedule.rate(step) - 0.04);
    }
  }
  EXPECT_NEAR(Schedule({.rate = 2.0, .decay = CosineDecay{}}, 100).rate(100), 0, 1e-12);
  Schedule plateau({.rate = 1.0, .decay = PlateauDecay{.factor = 0.5, .patience = 1}}, 100);
  for (const double loss : {3.0, 2.0, 2.5}) plateau.evaluated(loss);
  EXPECT_EQ(plateau.rate(50), 1.0);
  plateau.evaluated(2.5);
  EXPECT_EQ(plateau.rate(50), 0.5);
}

/// One parameter, a quadratic, 40 steps: against the textbook recurrences in double.
double descend(const Optimizer& optimizer, double rate) {
  const Tensor w = at::full({1}, 3.0, at::kDouble).requires_grad_(true);
  Descent descent(optimizer, {{"w", w}});
  for (int step = 0; step < 40; ++step) {
    descent.zero_gradients();
    (w * w * 0.5).sum().backward();
    descent.step(rate);
  }
  return w.item<double>();
}

TEST(Descent, FollowsTheTextbook) {
  double w = 3, m = 0, v = 0, decoupled = 3, dm = 0, dv = 0, sgd = 3, velocity = 0;
  for (int t = 1; t <= 40; ++t) {
    const auto adam = [&](double& weight, double& mean, double& square, double decay) {
      const double g = weight;
      weight -= 0.1 * decay * weight;
      mean = 0.9 * mean + 0.1 * g;
      square = 0.999 * square + 0.001 * g * g;
      weight -= 0.1 * (mean / (1 - std::pow(0.9, t))) /
                (std::sqrt(square / (1 - std::pow(0.999, t))) + 1e-8);
    };
    adam(w, m, v, 0);
    adam(decoupled, dm, dv, 0.01);
    velocity = 0.5 * velocity + sgd;
    sgd -= 0.1 * velocity;
  }
  EXPECT_NEAR(descend(Adam{}, 0.1), w, 1e-12);
  EXPECT_NEAR(descend(AdamW{{.weight_decay = 0.01}}, 0.1), decoupled, 1e-12);
  EXPECT_NEAR(descend(Sgd{.momentum = 0.5}, 0.1), sgd, 1e-12);
  const double rectified = descend(RAdam{}, 0.1);
  EXPECT_LT(std::abs(rectified), 3);
  EXPECT_NE(rectified, w);
}

TEST(Descent, ClipsTheNormOfAllGradientsTogether) {
  const Tensor a = at::zeros({3}).requires_grad_(true), b = at::zeros({4}).requires_grad_(true);
  Descent descent(Sgd{}, {{"a", a}, {"b", b}});
  (a.sum() * 3 + b.sum() * 4).backward();
  const double norm = std::sqrt(3 * 9.0 + 4 * 16.0);
  EXPECT_NEAR(descent.clip(1.0), norm, 1e-5);
  EXPECT_NEAR(descent.clip(0), 1.0, 1e-5);
}

}  // namespace
}  // namespace deq
