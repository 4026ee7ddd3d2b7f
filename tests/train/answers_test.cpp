// Problems answered one by one: the numbers are those of evaluation, nothing beside a problem
// changes its answer, and of several starts the smallest residual answers.
#include "deq/train/answers.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "deq/cells/convolution.h"
#include "deq/cells/shift.h"
#include "deq/solvers/anderson.h"
#include "deq/solvers/sweep.h"
#include "deq/tasks/copy_memory.h"
#include "deq/tasks/mazes.h"
#include "deq/tasks/prefix_sums.h"
#include "deq/tasks/word_problem.h"
#include "deq/train/trainer.h"
#include "tests/base/scratch.h"
#include "tests/train/small_run.h"

namespace deq {
namespace {

using testing::error_of;

/// A run of a few steps, with weights that do something.
struct Stirred {
  TrainOptions options;
  Trainer trainer;

  explicit Stirred(TrainOptions made, int steps = 4)
      : options(std::move(made)), trainer(options, load(options.task, "")) {
    for (int step = 0; step < steps; ++step) trainer.step();
    trainer.model().eval();
  }
  AnswerOptions how() const { return {.equilibrium = options.equilibrium}; }
};

TrainOptions shift_options() {
  TrainOptions options;
  options.task = PrefixSums{.length = 8, .problems = {.train = 256, .valid = 40, .test = 10}};
  options.model.cell = Shift{.width = 16, .inner = 32};
  options.model.embedding.tie_weights = false;
  options.model.initial = {.init_std = 0.2};
  options.equilibrium.solver = Sweep{};
  options.loop.batch.batch = 32;
  options.loop.optimization.schedule.rate = 0.01;
  return options;
}

TrainOptions maze_options() {
  TrainOptions options;
  options.task = Mazes{.size = 5, .problems = {.train = 64, .valid = 12, .test = 4}};
  options.model.cell = Convolution{.width = 8, .dimensions = 2};
  options.model.embedding.tie_weights = false;
  options.model.initial = {.init_std = 0.1};
  options.equilibrium.solver = Anderson{.scope = Scope::Sample};
  options.equilibrium.stop.max_steps = 12;
  options.loop.batch.batch = 16;
  return options;
}

Split one_of(const Split& split, int64_t s) {
  Split one = split;
  one.tokens = split.tokens.narrow(0, s, 1);
  one.targets = split.targets.narrow(0, s, 1);
  if (split.extents.defined()) one.extents = split.extents.narrow(0, s, 1);
  return one;
}

void expect_as_evaluated(TrainOptions options) {
  Stirred run(std::move(options));
  const Split& split = run.trainer.corpus().valid;
  const std::vector<Judged> judged = judge(run.trainer.model(), split, run.how());
  ASSERT_EQ(int64_t(judged.size()), split.tokens.size(0));
  int64_t right = 0;
  for (int64_t s = 0; s < split.tokens.size(0); ++s) {
    const Evaluation e =
        evaluate(run.trainer.model(), one_of(split, s), run.options.equilibrium, run.options.eval);
    const Judged& one = judged[size_t(s)];
    EXPECT_EQ(one.residual, e.worst_residual);
    EXPECT_EQ(double(one.evaluations), e.evaluations);
    EXPECT_EQ(one.converged, e.unconverged == 0);
    EXPECT_EQ(double(one.right), e.exact_share);
    const Answered answered =
        answer_problem(run.trainer.model(), one_of(split, s).tokens[0], run.how());
    EXPECT_EQ(answered.residual, one.residual);
    right += one.right;
  }
  const Evaluation all =
      evaluate(run.trainer.model(), split, run.options.equilibrium, run.options.eval);
  EXPECT_NEAR(all.exact_share, double(right) / double(judged.size()), 1e-12);
}

TEST(Answers, AreThoseOfEvaluation) {
  expect_as_evaluated(shift_options());
  expect_as_evaluated(maze_options());
  TrainOptions copy = testing::small_copy_options();  // the end of a sequence holds the answer
  expect_as_evaluated(copy);
}

TEST(Answers, OfTheEndOfASequenceOnlyThatIsJudged) {
  Stirred run(testing::small_copy_options());
  Split split = one_of(run.trainer.corpus().valid, 0);
  const at::Tensor answer = answer_problem(run.trainer.model(), split.tokens[0], run.how()).answer;
  split.targets = answer.unsqueeze(0).clone();
  split.targets[0][0] = (answer[0].item<int64_t>() + 1) % 10;
  EXPECT_TRUE(judge(run.trainer.model(), split, run.how())[0].right);
  split.targets[0][15] = (answer[15].item<int64_t>() + 1) % 10;
  EXPECT_FALSE(judge(run.trainer.model(), split, run.how())[0].right);
  split.targets[0][15] = -1;
  EXPECT_TRUE(judge(run.trainer.model(), split, run.how())[0].right);
}

TEST(Answers, NothingBesideAProblemChangesIt) {
  TrainOptions options = shift_options();
  options.task = WordProblem{.min_length = 1, .length = 9, .problems = {.train = 64, .valid = 40}};
  Stirred run(options);
  const Split& mixed = run.trainer.corpus().train;  // of several lengths
  AnswerOptions how = run.how();
  how.from.starts = 3;
  const std::vector<Judged> judged = judge(run.trainer.model(), mixed, how);
  for (int64_t s = 63; s >= 0; s -= 7) {
    const int64_t length = mixed.extents[s][0].item<int64_t>();
    const at::Tensor problem = mixed.tokens[s].narrow(0, 0, length);
    at::rand({17});  // nor does LibTorch's generator
    const Answered found = answer_problem(run.trainer.model(), problem, how);
    EXPECT_EQ(found.residual, judged[size_t(s)].residual);
    EXPECT_EQ(found.answer.sizes(), problem.sizes());
    EXPECT_EQ(judged[size_t(s)].extent, std::vector<int64_t>{length});
  }
}

TEST(Answers, OfSeveralStartsTheSmallestResidualAnswers) {
  Stirred run(maze_options());
  const at::Tensor problem = run.trainer.corpus().test.tokens[0];
  AnswerOptions how = run.how();
  how.equilibrium.stop = {.max_steps = 5, .rel_tol = 1e-9};
  Answered before = answer_problem(run.trainer.model(), problem, how);
  EXPECT_EQ(before.start, 0);
  const Answered zero = before;
  int64_t others = 0;
  for (int64_t starts = 2; starts <= 8; ++starts) {
    how.from.starts = starts;
    const Answered found = answer_problem(run.trainer.model(), problem, how);
    EXPECT_LE(found.residual, before.residual);
    EXPECT_EQ(found.start == before.start, found.residual == before.residual);
    EXPECT_EQ(found.evaluations, starts * zero.evaluations);
    others += found.start != before.start;
    before = found;
  }
  EXPECT_GT(others, 0);
  how.from.start_seed = 2;
  EXPECT_NE(answer_problem(run.trainer.model(), problem, how).residual, before.residual);
}

TEST(Answers, TheWayEndsWhereTheSolveDoes) {
  Stirred run(maze_options());
  const at::Tensor problem = run.trainer.corpus().test.tokens[0];
  AnswerOptions how = run.how();
  how.equilibrium.stop = {.max_steps = 9, .rel_tol = 1e-9};
  const auto way = answer_along(run.trainer.model(), problem, how, 0);
  ASSERT_EQ(way.size(), 4u);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(way[i].steps, int64_t(1) << i);
    how.equilibrium.stop.max_steps = way[i].steps;
    EXPECT_EQ(way[i].found.residual, answer_problem(run.trainer.model(), problem, how).residual);
  }
  how.equilibrium.stop = {.max_steps = 100, .rel_tol = 10};
  EXPECT_TRUE(answer_along(run.trainer.model(), problem, how, 0).empty());
}

TEST(Answers, WhatIsNotFiniteAnswersNothing) {
  Stirred run(shift_options());
  {
    at::NoGradGuard no_tape;
    run.trainer.model().parameters().front().fill_(std::nan(""));
  }
  const Answered found = answer_problem(run.trainer.model(), at::ones({4}, at::kLong), run.how());
  EXPECT_FALSE(found.converged);
  EXPECT_TRUE(std::isinf(found.residual));
  EXPECT_TRUE(found.answer.eq(-1).all().item<bool>());
}

TEST(Answers, AnExplicitNetworkHasNoResidual) {
  TrainOptions options = shift_options();
  options.model.depth.depth = 3;
  Stirred run(options);
  const Answered found = answer_problem(run.trainer.model(), at::ones({4}, at::kLong), run.how());
  EXPECT_TRUE(std::isinf(found.residual));
  EXPECT_FALSE(found.converged);
  EXPECT_EQ(found.evaluations, 3);
  AnswerOptions how = run.how();
  how.from.starts = 2;
  EXPECT_SAYS(error_of([&] { answer_problem(run.trainer.model(), at::ones({4}, at::kLong), how); }),
              "starts = 2: an explicit network has no residual");
}

}  // namespace
}  // namespace deq
