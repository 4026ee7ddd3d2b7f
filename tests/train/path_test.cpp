// Where a step's solves begin and how they go on: each option does what it says, and resumes.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "deq/cells/convolution.h"
#include "deq/cells/shift.h"
#include "deq/gradients/unrolled.h"
#include "deq/solvers/picard.h"
#include "deq/tasks/prefix_sums.h"
#include "deq/train/trainer.h"
#include "tests/base/scratch.h"
#include "tests/train/states.h"

namespace deq {
namespace {

using at::Tensor;
using testing::after;
using testing::error_of;
using testing::same;
using testing::trainer_of;

TrainOptions small() {
  TrainOptions options;
  options.task =
      PrefixSums{.length = 6, .test_lengths = {}, .problems = {.train = 12, .valid = 5, .test = 5}};
  options.model.cell = Convolution{.width = 5, .convolutions = 3};
  options.model.embedding.tie_weights = false;
  options.model.initial = {.init_std = 0.3, .embedding_init_std = 0.3};
  options.equilibrium = {.solver = Picard{}, .stop = {.max_steps = 6}, .gradient = Unrolled{4}};
  options.loop.batch = {.batch = 4};
  options.loop.optimization.optimizer = Sgd{};
  options.loop.optimization.schedule.rate = 0.1;
  options.loop.limits.steps = 20;
  return options;
}

/// Short enough for a network that has not learned to be right on some.
Task two_bits() {
  return PrefixSums{
      .length = 2, .test_lengths = {}, .problems = {.train = 40, .valid = 5, .test = 5}};
}

std::vector<std::pair<const char*, PathOptions>> paths() {
  return {{"normal", {.start = {StartKind::Normal}}},
          {"wide", {.start = {StartKind::Normal, 2.0}}},
          {"mixed", {.start = {StartKind::Mixed}}},
          {"input", {.start = {StartKind::Input}}},
          {"noise", {.noise = 0.1}},
          {"progressive", {.progressive = true}},
          {"segments", {.segments = 3}},
          {"carry", {.carry = 4}},
          {"carry right", {.carry = 6, .carry_right = 1}},
          {"carry over", {.carry = 3, .carry_over = 0.5}},
          {"carry grace", {.carry = 6, .carry_grace = 2}},
          {"rest", {.rest_weight = 3}},
          {"rest after", {.rest_weight = 3, .rest_after = 9}},
          {"ema", {.ema = 0.9}},
          {"all",
           {.start = {StartKind::Mixed},
            .noise = 0.1,
            .progressive = true,
            .segments = 2,
            .carry = 5,
            .carry_right = 2,
            .carry_over = 0.5,
            .carry_grace = 2,
            .rest_weight = 3,
            .ema = 0.9}}};
}

std::vector<int64_t> five_wide(const Tensor& tokens) {
  std::vector<int64_t> shape = tokens.sizes().vec();
  shape.push_back(5);
  return shape;
}

TEST(Path, EveryOptionChangesTheWeightsAndResumesToTheSameBits) {
  for (const auto& [name, path] : paths()) {
    TrainOptions options = small();
    if (path.carry_right > 0 || path.rest_weight > 0)
      options.task = two_bits();  // some of which are right
    const NamedTensors plain = after(options, 12);
    options.loop.path = path;
    const NamedTensors whole = after(options, 12);
    EXPECT_FALSE(same(whole, plain)) << name;
    Trainer resumed = trainer_of(options);
    resumed.restore(after(options, 7));
    for (int64_t step = 7; step < 12; ++step) resumed.step();
    EXPECT_TRUE(same(resumed.state(), whole)) << name;
  }
}

TEST(Path, AnAverageIsThatOfTheWeightsAndStandsInForThem) {
  TrainOptions options = small();
  options.loop.path.ema = 0.6;
  Trainer trainer = trainer_of(options);
  std::map<std::string, Tensor> expected;
  for (const auto& [name, weight] : parameters_of(trainer.model()))
    expected[name] = weight.detach().clone();
  for (int64_t t = 0; t < 9; ++t) {
    trainer.step();
    const double r = std::min(0.6, double(1 + t) / double(10 + t));
    for (const auto& [name, weight] : parameters_of(trainer.model()))
      expected[name] = r * expected[name] + (1 - r) * weight.detach();
  }
  const NamedTensors kept = trainer.weights();
  for (const auto& [name, value] : expected)
    EXPECT_LT((kept.at(name) - value).abs().max().item<double>(), 1e-6) << name;
  const double averaged = trainer.evaluate_valid().loss;
  load_weights(trainer.model(), kept, "the average");
  TrainOptions without = options;
  without.loop.path.ema = 0;
  Trainer other = trainer_of(without);
  load_weights(other.model(), kept, "the average");
  EXPECT_EQ(other.evaluate_valid().loss, averaged);
}

TEST(Path, SegmentsAreAsManyDescentsOfOneBatch) {
  TrainOptions options = small();
  options.loop.path.segments = 3;
  Trainer three = trainer_of(options);
  three.step();
  // By hand: one batch, its state carried on, three steps of SGD.
  Trainer one = trainer_of(small());
  TrainingReader reader(one.corpus(), {.batch = 4, .seed = small().loop.run.seed});
  const Batch batch = reader.next();
  ForwardOptions how = training_forward(small(), true);
  for (int segment = 0; segment < 3; ++segment) {
    one.model().zero_grad();
    const Pass pass = pass_batch(one.model(), batch, {}, how, {}, 1);
    how.z0 = pass.z;
    Descent descent(Sgd{}, parameters_of(one.model()));
    descent.clip(small().loop.stability.clip);
    descent.step(three.schedule().rate(1));
  }
  const NamedTensors found = parameters_of(three.model());
  for (const auto& [name, weight] : parameters_of(one.model()))
    EXPECT_LT((found.at(name) - weight).abs().max().item<double>(), 1e-6) << name;
}

TEST(Path, RestIsWeighedWhereAnswersAreRight) {
  TrainOptions options = small();
  options.task = two_bits();
  options.loop.batch.batch = 20;
  TrainOptions weighed = options;
  weighed.loop.path.rest_weight = 7;
  Trainer trainer = trainer_of(weighed);
  const StepReport report = trainer.step();
  // By hand, in LibTorch's operators.
  Trainer one = trainer_of(options);
  TrainingReader reader(one.corpus(), {.batch = 20, .seed = options.loop.run.seed});
  const Batch batch = reader.next();
  Model& model = one.model();
  const Bound f = std::move(model.bind(batch.tokens, {}).front());
  Tensor z = at::zeros({20, 2, 5});
  for (int step = 0; step < 4; ++step) z = f.f(z);
  const Tensor fz = f.f(z), log_p = model.log_probabilities(z);
  const Tensor right = log_p.argmax(-1).eq(batch.targets).all(1);
  const auto count = right.sum().item<int64_t>();
  ASSERT_TRUE(count > 0 && count < 20) << count;
  const Tensor rest = ((fz - z).square().sum({1, 2}) / fz.detach().square().sum({1, 2}) * right);
  const Tensor nats = -log_p.gather(-1, batch.targets.unsqueeze(-1)).mean();
  EXPECT_NEAR(report.rest, rest.mean().item<double>(), 1e-6);
  EXPECT_NEAR(report.loss, nats.item<double>(), 1e-6) << "the loss is reported without it";
  (nats + 7 * rest.mean()).backward();
  Descent descent(Sgd{}, parameters_of(model));
  descent.clip(options.loop.stability.clip);
  descent.step(trainer.schedule().rate(1));
  const NamedTensors found = parameters_of(trainer.model());
  for (const auto& [name, weight] : parameters_of(model))
    EXPECT_LT((found.at(name) - weight).abs().max().item<double>(), 1e-6) << name;
}

TEST(Path, RestIsWeighedAfterItsStepsAndNoSooner) {
  TrainOptions options = small();
  options.task = two_bits();
  options.loop.batch.batch = 20;
  options.loop.path.rest_weight = 7;
  for (const int64_t after : {0, 2}) {
    options.loop.path.rest_after = after;
    Trainer trainer = trainer_of(options);
    for (int64_t step = 0; step < 4; ++step) EXPECT_EQ(trainer.step().rest > 0, step >= after);
  }
}

TEST(Path, ProblemsThatAreRightGoAfterTheirStepsOnAverage) {
  TrainOptions options = small();
  options.task = two_bits();
  // Of twenty problems a step, those that were replaced.
  const auto replaced = [&](int64_t steps_when_right, const Tensor& right) {
    torch::manual_seed(3);
    const Corpus corpus = load(options.task, "");
    TrainingReader problems(corpus, {.batch = 20});
    Carried carried({.carry = 1 << 20, .carry_right = steps_when_right});
    carried.next(problems, {}, five_wide, at::kCPU);
    Tensor times = at::zeros({20}, at::kLong);
    for (int64_t step = 0; step < 300; ++step) {
      carried.keep(at::ones({20, 2, 5}), right);
      times += carried.next(problems, {}, five_wide, at::kCPU).z0.flatten(1).eq(0).all(1);
    }
    return times;
  };
  const Tensor some = replaced(6, at::arange(20).lt(10));
  EXPECT_NEAR(some.slice(0, 0, 10).sum().item<double>(), 10 * 300 / 6., 100);
  EXPECT_EQ(some.slice(0, 10).sum().item<int64_t>(), 0) << "wrong ones stay";
  EXPECT_TRUE(replaced(1, at::ones({20}, at::kBool)).eq(300).all().item<bool>());
}

TEST(Path, AShareOfProblemsStartsFromTheStateBeforeThem) {
  TrainOptions options = small();
  options.task = two_bits();
  for (const double share : {0.0, 0.25, 1.0}) {
    torch::manual_seed(3);
    const Corpus corpus = load(options.task, "");
    TrainingReader problems(corpus, {.batch = 20});
    Carried carried({.carry = 2, .carry_over = share});
    carried.next(problems, {}, five_wide, at::kCPU);
    int64_t kept = 0, all = 0;
    for (int64_t step = 1; step <= 40; ++step) {
      carried.keep(at::ones({20, 2, 5}), {});
      const Tensor z0 = carried.next(problems, {}, five_wide, at::kCPU).z0;
      if (step % 2 == 1) continue;  // of age 1: the same problems
      kept += z0.flatten(1).eq(1).all(1).sum().item<int64_t>();
      all += 20;
    }
    EXPECT_NEAR(double(kept) / double(all), share, share > 0 && share < 1 ? 0.08 : 0);
  }
}

TEST(Path, TheFirstStepsOfAProblemHaveNoLoss) {
  TrainOptions options = small();
  options.task = two_bits();
  const Corpus corpus = load(options.task, "");
  TrainingReader problems(corpus, {.batch = 20});
  Carried carried({.carry = 9, .carry_grace = 3});
  std::vector<int64_t> age(20, 0);
  for (int64_t step = 0; step < 60; ++step) {
    const Carried::Step taken = carried.next(problems, {}, five_wide, at::kCPU);
    for (int64_t row = 0; row < 20; ++row) {
      if (taken.z0[row].eq(0).all().item<bool>()) age[size_t(row)] = 0;
      EXPECT_EQ(taken.batch.targets[row].ge(0).all().item<bool>(), age[size_t(row)]++ >= 3);
    }
    carried.keep(at::ones({20, 2, 5}), {});
  }
  options.loop.path = {.carry = 6, .carry_grace = 3, .rest_weight = 2};
  Trainer trainer = trainer_of(options);
  const StepReport first = trainer.step();
  EXPECT_EQ(first.loss, 0) << "no problem has one yet";
  EXPECT_EQ(first.rest, 0);
  EXPECT_TRUE(first.finite);
}

TEST(Path, WhatDoesNotGoTogetherIsAnError) {
  const auto says = [](const std::function<void(TrainOptions&)>& change) {
    TrainOptions options = small();
    change(options);
    return error_of([&] { trainer_of(options); });
  };
  EXPECT_SAYS(says([](TrainOptions& o) { o.loop.path.carry = 1; }), "carry = 1");
  EXPECT_SAYS(says([](TrainOptions& o) {
                o.loop.path.carry = 3;
                o.loop.path.carry_grace = 3;
              }),
              "carry-grace = 3 with carry = 3");
  EXPECT_SAYS(says([](TrainOptions& o) {
                o.model.cell = Shift{.width = 5, .inner = 6};
                o.loop.batch.subsequence = 2;
                o.loop.path.noise = 0.1;
              }),
              "noise = 0.1 with subsequence = 2");
  EXPECT_SAYS(says([](TrainOptions& o) {
                o.loop.path.segments = 2;
                o.loop.batch.accumulate = 2;
              }),
              "segments = 2 with accumulate = 2");
  EXPECT_SAYS(says([](TrainOptions& o) {
                o.loop.path.carry = 3;
                o.loop.path.start.kind = StartKind::Input;
              }),
              "carry = 3 with start = input");
  EXPECT_SAYS(says([](TrainOptions& o) {
                o.loop.path.progressive = true;
                o.equilibrium.gradient = Gradient();
              }),
              "progressive = true with gradient implicit");
}

}  // namespace
}  // namespace deq
