// The trainer beside a step that is written out: whatever an option does to a step, in size too,
// shows in the weights.
#include <gtest/gtest.h>

#include <map>
#include <tuple>

#include "deq/gradients/implicit.h"
#include "deq/gradients/phantom.h"
#include "deq/solvers/anderson.h"
#include "tests/train/plain_step.h"

namespace deq {
namespace {

using testing::distance;
using testing::expect_same_step;
using testing::kLevels;
using testing::plain_options;
using testing::PlainStep;
using testing::small_corpus;

TEST(Step, IsDescentOnTheMeanLoss) {
  const TrainOptions options = plain_options();
  Trainer trainer(options, small_corpus());
  PlainStep written(trainer, options);
  EXPECT_EQ(trainer.tokens_per_step(), 3 * 7);
  for (int step = 1; step <= 4; ++step) {
    const StepReport r =
        expect_same_step(trainer, written, [](PlainStep& plain) { plain.take(kLevels, 0.5); });
    EXPECT_EQ(r.step, step);
    EXPECT_EQ(trainer.steps_done(), step);
    EXPECT_NEAR(r.loss, written.loss, 1e-5);
    EXPECT_NEAR(r.gradient_norm, written.norm, 1e-4 * written.norm);
    EXPECT_EQ(r.rate, 0.5);
    EXPECT_EQ(r.evaluations, kLevels);
    EXPECT_EQ(r.depth, 0);
    EXPECT_TRUE(r.finite);
    EXPECT_FALSE(r.pretraining);
    EXPECT_EQ(r.adjoint_solves, 0);
    EXPECT_EQ(r.jacobian_estimates, 0);
  }
}

TEST(Step, FollowsBatchLengthAndHistory) {
  for (const auto& [batch, length, history] :
       {std::tuple<int64_t, int64_t, int64_t>{2, 7, 7}, {3, 5, 7}, {3, 7, 0}, {3, 7, 3}}) {
    TrainOptions options = plain_options();
    options.loop.batch = {.batch = batch, .length = length, .history = history};
    Trainer trainer(options, small_corpus());
    PlainStep written(trainer, options);
    EXPECT_EQ(trainer.tokens_per_step(), batch * length);
    for (int step = 0; step < 3; ++step)
      expect_same_step(trainer, written, [](PlainStep& plain) { plain.take(kLevels, 0.5); });
  }
}

TEST(Step, OfSeveralSegmentsIsTheirMean) {
  for (const int64_t segments : {2, 3}) {
    TrainOptions options = plain_options();
    options.loop.batch.accumulate = segments;
    Trainer trainer(options, small_corpus());
    PlainStep written(trainer, options);
    EXPECT_EQ(trainer.tokens_per_step(), segments * 3 * 7);
    for (int step = 0; step < 3; ++step) {
      const StepReport r =
          expect_same_step(trainer, written, [](PlainStep& plain) { plain.take(kLevels, 0.5); });
      EXPECT_NEAR(r.gradient_norm, written.norm, 1e-4 * written.norm);
    }
  }
}

TEST(Step, ClipsTheWholeGradient) {
  for (const double share : {0.4, 0.9, 1.1}) {
    TrainOptions options = plain_options();
    Trainer unclipped(options, small_corpus());
    const double norm = unclipped.step().gradient_norm;
    options.loop.stability.clip = share * norm;
    Trainer trainer(options, small_corpus());
    PlainStep written(trainer, options);
    for (int step = 0; step < 3; ++step) {
      const StepReport r =
          expect_same_step(trainer, written, [](PlainStep& plain) { plain.take(kLevels, 0.5); });
      EXPECT_NEAR(r.gradient_norm, written.norm, 1e-4 * written.norm) << "before clipping";
    }
  }
}

TEST(Step, GoesByTheSchedule) {
  TrainOptions options = plain_options();
  options.loop.optimization.schedule = {
      .rate = 0.8, .warmup = 2, .decay = CosineDecay{.floor = 0.25}};
  Trainer trainer(options, small_corpus());
  PlainStep written(trainer, options);
  for (int step = 1; step <= 5; ++step) {
    const double share = (step - 2) / 7.0;  // of the 7 of 9 steps behind the warm-up
    const double rate =
        step < 2 ? 0.8 * step / 2 : 0.8 * (0.25 + 0.75 * 0.5 * (1 + std::cos(M_PI * share)));
    const StepReport r =
        expect_same_step(trainer, written, [&](PlainStep& plain) { plain.take(kLevels, rate); });
    EXPECT_NEAR(r.rate, rate, 1e-12);
  }
}

TEST(Step, PretrainsAShallowNetworkFirst) {
  TrainOptions options = plain_options();
  options.loop.stability.pretrain_steps = 2;
  options.loop.stability.pretrain_depth = 3;
  Trainer trainer(options, small_corpus());
  PlainStep written(trainer, options);
  for (int step = 1; step <= 4; ++step) {
    const StepReport r = expect_same_step(
        trainer, written, [&](PlainStep& plain) { plain.take(step <= 2 ? 3 : kLevels, 0.5); });
    EXPECT_EQ(r.pretraining, step <= 2);
    EXPECT_EQ(r.evaluations, step <= 2 ? 3 : kLevels);
  }
}

TEST(Step, WeighsTheJacobianAndItsWeightGrows) {
  TrainOptions options = plain_options();
  options.loop.stability.pretrain_steps = 1;
  options.loop.stability.pretrain_depth = kLevels;
  options.loop.stability.jacobian_weight = 0.7;
  options.loop.stability.jacobian_frequency = 1;
  options.loop.stability.jacobian_growth_every = 2;
  Trainer trainer(options, small_corpus());
  PlainStep written(trainer, options);
  for (int step = 1; step <= 6; ++step) {
    const double weight = step == 1 ? 0 : step <= 3 ? 0.7 : step <= 5 ? 0.8 : 0.9;
    const StepReport r = expect_same_step(
        trainer, written, [&](PlainStep& plain) { plain.take(kLevels, 0.5, weight, weight > 0); });
    EXPECT_EQ(r.jacobian_estimates, weight > 0 ? 1 : 0);
    if (weight > 0) {
      EXPECT_NEAR(r.jacobian, written.estimate, 1e-4 * written.estimate);
    }
    EXPECT_NEAR(r.loss, written.loss, 1e-5) << "the loss is reported without it";
  }
}

TEST(Step, TheJacobiansWeightStaysWithoutGrowth) {
  TrainOptions options = plain_options();
  options.loop.stability.jacobian_weight = 0.7;
  options.loop.stability.jacobian_frequency = 1;
  Trainer trainer(options, small_corpus());
  PlainStep written(trainer, options);
  for (int step = 1; step <= 4; ++step)
    expect_same_step(trainer, written,
                     [&](PlainStep& plain) { plain.take(kLevels, 0.5, 0.7, true); });
}

TEST(Step, SolvesWithRandomlyFewerSteps) {
  TrainOptions options = plain_options();
  options.equilibrium = {.solver = Anderson{.scope = Scope::Sample},
                         .stop = {.max_steps = 9, .rel_tol = 0},
                         .gradient = OneStep{}};
  options.loop.limits.steps = 200;
  const auto counts = [&](int64_t fewer) {
    options.loop.stability.fewer_steps = fewer;
    Trainer trainer(options, small_corpus());
    std::map<int64_t, int> found;
    for (int step = 0; step < 60; ++step) ++found[int64_t(trainer.step().evaluations)];
    return found;
  };
  const auto all = counts(0);
  ASSERT_EQ(all.size(), 1u);
  const int64_t most = all.begin()->first;
  const auto some = counts(3);
  EXPECT_EQ(some.size(), 4u);
  EXPECT_EQ(some.rbegin()->first, most);
  EXPECT_EQ(some.begin()->first, most - 3);
  const auto least = counts(20);  // never less than one
  EXPECT_EQ(least.begin()->first, most - 8);
}

TEST(Step, InPartsIsTheSameEquilibrium) {
  TrainOptions options = plain_options();
  options.equilibrium = {.solver = Anderson{.scope = Scope::Causal},
                         .stop = {.max_steps = 60, .rel_tol = 1e-6},
                         .gradient = Implicit{.stop = {.max_steps = 60, .rel_tol = 1e-6}}};
  Trainer whole(options, small_corpus());
  options.loop.batch.subsequence = 3;
  Trainer parts(options, small_corpus());
  for (int step = 0; step < 3; ++step) {
    const StepReport a = whole.step(), b = parts.step();
    EXPECT_GT(b.evaluations, 1.5 * a.evaluations) << "the sum over three parts";
    EXPECT_NEAR(a.loss, b.loss, 1e-4);
  }
  EXPECT_LT(distance(whole.model(), parts.model()), 1e-3);
}

}  // namespace
}  // namespace deq
