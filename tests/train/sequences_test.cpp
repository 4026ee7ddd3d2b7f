// Sequences that stand alone: what is scored, what an answer counts for, and that copy memory can
// be learnt.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "deq/solvers/anderson.h"
#include "deq/train/score.h"
#include "deq/train/trainer.h"
#include "tests/base/scratch.h"
#include "tests/train/small_run.h"

namespace deq {
namespace {

using at::Tensor;

/// A model of copy memory that has taken a few steps, with weights that tell positions apart.
Trainer stirred(TrainOptions options) {
  options.model.initial.init_std = 0.3;
  Trainer trainer(options, load(options.task, ""));
  for (int step = 0; step < 4; ++step) trainer.step();
  return trainer;
}

/// log p (S, L, V), one sequence at a time.
Tensor plain_log_probabilities(Trainer& trainer, const Split& split, const TrainOptions& options) {
  at::NoGradGuard no_tape;
  trainer.model().eval();
  ForwardOptions how;
  how.equilibrium = options.equilibrium;
  std::vector<Tensor> all;
  for (int64_t s = 0; s < split.tokens.size(0); ++s) {
    const Tensor z = trainer.model().forward(split.tokens.narrow(0, s, 1), {}, how).z;
    all.push_back(trainer.model().log_probabilities(z));
  }
  trainer.model().train();
  return at::cat(all);
}

TEST(Sequences, EvaluationIsThePlainSumWhateverTheBatch) {
  const TrainOptions options = testing::small_copy_options();
  Trainer trainer = stirred(options);
  Split split = trainer.corpus().valid;  // 17 sequences of 25
  const Tensor log_p = plain_log_probabilities(trainer, split, options);
  const Tensor likeliest = log_p.argmax(2);
  // The model is right in five sequences, and in four more but for one symbol, or where that is not
  // scored.
  split.targets = split.targets.clone();
  split.targets.narrow(0, 0, 9).copy_(likeliest.narrow(0, 0, 9));
  for (int64_t s = 5; s < 9; ++s) {
    Tensor target = split.targets[s][15 + s];
    target.fill_(s == 8 ? -1 : (target.item<int64_t>() + 1) % 10);
  }
  split.targets.narrow(0, 9, 8).narrow(1, 15, 10).copy_(
      (likeliest.narrow(0, 9, 8).narrow(1, 15, 10) + 3).remainder(10));
  split.targets[3][2] = -1;
  const Tensor scored = split.targets.ge(0);
  const Tensor nats =
      -log_p.gather(2, split.targets.clamp_min(0).unsqueeze(2)).squeeze(2).to(at::kDouble) * scored;
  const auto mean = [&](int64_t first, int64_t count) {
    return (nats.narrow(1, first, count).sum() / scored.narrow(1, first, count).sum())
        .item<double>();
  };
  const Tensor wanted = split.targets.narrow(1, 15, 10);
  const auto count = [](const Tensor& which) { return double(which.sum().item<int64_t>()); };
  const double right = count(likeliest.narrow(1, 15, 10).eq(wanted)) / count(wanted.ge(0));
  ASSERT_GT(right, 0.3);
  ASSERT_LT(right, 0.7);
  for (const int64_t batch : {1, 3, 16, 17, 100}) {
    EvaluationOptions cut = options.eval;
    cut.batch = batch;
    double share = 0;
    const Evaluation e = evaluate(trainer.model(), split, options.equilibrium, cut,
                                  [&](double done) { share = done; });
    EXPECT_EQ(e.tokens, 17 * 25 - 2);
    EXPECT_EQ(e.answer, 10);
    EXPECT_NEAR(e.loss, mean(0, 25), 1e-5) << batch;
    EXPECT_NEAR(e.answer_loss, mean(15, 10), 1e-5) << batch;
    EXPECT_EQ(e.exact_share, 6.0 / 17) << batch;
    EXPECT_EQ(e.right_share, right) << batch;
    EXPECT_EQ(share, 1);
  }
  EXPECT_TRUE(trainer.model().is_training());
}

TEST(Sequences, AResidualIsOfEveryPositionWhateverIsScored) {
  TrainOptions options = testing::small_copy_options();
  options.eval.batch = 1;
  options.equilibrium.stop.max_steps = 3;
  Trainer trainer = stirred(options);
  const Split all = trainer.corpus().valid;
  Split few = all;
  few.targets = all.targets.clone();
  few.targets.narrow(0, 0, 8).narrow(1, 1, 24).fill_(-1);
  const Evaluation a = evaluate(trainer.model(), all, options.equilibrium, options.eval);
  const Evaluation b = evaluate(trainer.model(), few, options.equilibrium, options.eval);
  ASSERT_EQ(b.tokens, a.tokens - 8 * 24);
  ASSERT_GT(a.mean_residual, 0);
  EXPECT_EQ(b.mean_residual, a.mean_residual);
  EXPECT_EQ(b.converged_share, a.converged_share);
  EXPECT_EQ(b.worst_residual, a.worst_residual);
}

TEST(Sequences, WhatIsNotFiniteIsNotExact) {
  const TrainOptions options = testing::small_copy_options();
  Trainer trainer(options, load(options.task, ""));
  for (auto& parameter : trainer.model().parameters()) parameter.detach().fill_(NAN);
  Split split = trainer.corpus().valid;
  split.targets = at::zeros_like(split.targets);
  EXPECT_EQ(evaluate(trainer.model(), split, options.equilibrium, options.eval).exact_share, 0);
}

TEST(Sequences, WhatIsNotScoredHasNoGradient) {
  const TrainOptions options = testing::small_copy_options();
  Trainer trainer = stirred(options);
  trainer.model().eval();
  const Tensor z = at::randn({3, 25, 16}).requires_grad_(true);
  const Tensor targets = at::randint(10, {3, 25}, at::kLong);
  const Tensor plain = trainer.model().loss(z, targets);
  EXPECT_TRUE(at::equal(losses_of(trainer.model(), z, targets).nats, plain));
  const Tensor scored = at::rand({3, 25}).lt(0.5);
  const Losses losses = losses_of(trainer.model(), z, targets.masked_fill(~scored, -1));
  EXPECT_EQ(losses.count, scored.sum().item<int64_t>());
  EXPECT_TRUE(at::equal(losses.nats, plain * scored));
  losses.nats.sum().backward();
  EXPECT_TRUE(at::equal(z.grad().abs().sum(2).gt(0), scored));
}

TEST(Sequences, TrainingIgnoresTargetsThatAreNotScored) {
  const TrainOptions options = testing::small_copy_options();
  Corpus corpus = load(options.task, "");
  Tensor ignored = at::rand(corpus.train.targets.sizes()).lt(0.5);
  ignored.select(1, 0).fill_(false);
  corpus.train.targets = corpus.train.targets.masked_fill(ignored, -1);
  // Of fresh weights about ln 10 at each target: a mean over what is scored, not over all.
  EXPECT_NEAR(Trainer(options, corpus).step().loss, std::log(10), 0.5);
}

TEST(Sequences, LeakNothingBySolversThatAreCausal) {
  TrainOptions options = testing::small_copy_options();
  Trainer trainer = stirred(options);
  EquilibriumOptions equilibrium = options.equilibrium;
  equilibrium.stop = {.max_steps = 30, .rel_tol = 1e-2};
  const Split& split = trainer.corpus().valid;
  EXPECT_EQ(measure_leak(trainer.model(), split, equilibrium, options.eval), 0);
  equilibrium.solver = Anderson{.scope = Scope::Sample};
  EXPECT_GT(measure_leak(trainer.model(), split, equilibrium, options.eval), 0);
  const Split short_ones{.tokens = split.tokens.narrow(1, 0, 1),
                         .targets = split.targets.narrow(1, 0, 1)};
  EXPECT_SAYS(testing::error_of(
                  [&] { measure_leak(trainer.model(), short_ones, equilibrium, options.eval); }),
              "sequences of 1 position; expected >= 2");
}

TEST(Sequences, ABatchLargerThanTheTrainingSplitIsAnError) {
  TrainOptions options = testing::small_copy_options();
  options.loop.batch.batch = 101;
  EXPECT_SAYS(testing::error_of([&] { Trainer(options, load(options.task, "")); }),
              "batch = 101 of 100 training sequences; expected <= 100");
}

TEST(Sequences, CopyMemoryIsLearnt) {
  TrainOptions options = testing::small_copy_options();
  CopyMemory task{.delay = 5, .train_sequences = 4000, .valid_sequences = 50};
  options.task = task;
  Transformer cell;
  cell.width = 32;
  cell.heads = 2;
  cell.inner = 32;
  // Symbols must be far apart from the start: with 0.02 it stays a memoryless guess this long.
  options.model = {.cell = cell, .initial = {.init_std = 0.1, .embedding_init_std = 0.2}};
  options.loop.batch = {.batch = 32};
  options.loop.stability = {.pretrain_steps = 100, .clip = 1};
  options.loop.optimization.schedule.rate = 3e-3;
  options.loop.limits.steps = 140;
  Trainer trainer(options, load(options.task, ""));
  EXPECT_EQ(trainer.tokens_per_step(), 32 * 25);
  for (int step = 0; step < 140; ++step) trainer.step();
  const Evaluation e = trainer.evaluate_valid();
  EXPECT_LT(e.loss, 0.5 * task.memoryless_loss());
  EXPECT_LT(e.answer_loss, 0.5 * std::log(8));
  EXPECT_GT(e.converged_share, 0.5);
}

}  // namespace
}  // namespace deq
