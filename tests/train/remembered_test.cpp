// Solves that start where a problem's last one ended: what is kept, what it saves, and that results
// do not depend on it.
#include "deq/train/remembered.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "deq/cells/convolution.h"
#include "deq/gradients/implicit.h"
#include "deq/gradients/unrolled.h"
#include "deq/solvers/anderson.h"
#include "deq/solvers/picard.h"
#include "deq/tasks/prefix_sums.h"
#include "deq/train/trainer.h"
#include "tests/base/scratch.h"
#include "tests/train/small_run.h"

namespace deq {
namespace {

using at::Tensor;
using testing::error_of;

constexpr int64_t kPool = 24, kBatch = 8;

TrainOptions small(StartKind start, double rel_tol = 1e-3) {
  TrainOptions options;
  options.task = PrefixSums{
      .length = 6, .test_lengths = {}, .problems = {.pool = kPool, .valid = 5, .test = 5}};
  options.model.cell = Convolution{.width = 5, .convolutions = 3, .norm = ConvolutionNorm::None};
  options.model.embedding.tie_weights = false;
  options.model.initial = {.init_std = 0.15, .embedding_init_std = 0.3};
  const StopRule stop{.max_steps = 200, .rel_tol = rel_tol};
  options.equilibrium = {
      .solver = Picard{},
      .stop = stop,
      .gradient = Implicit{.solver = Anderson{.scope = Scope::Sample}, .stop = stop}};
  options.loop.batch = {.batch = kBatch};
  options.loop.path.start.kind = start;
  options.loop.optimization.optimizer = Sgd{};
  options.loop.optimization.schedule.rate = 0.02;
  options.loop.limits.steps = 60;
  return options;
}

Trainer trainer_of(const TrainOptions& options) { return Trainer(options, load(options.task, "")); }

NamedTensors held(const Trainer& trainer) {
  NamedTensors held;
  for (const auto& [name, tensor] : trainer.state()) held[name] = tensor.clone();
  return held;
}

Batch batch_of(std::vector<int64_t> problems) {
  Batch batch;
  batch.tokens = at::zeros({int64_t(problems.size()), 3}, at::kLong);
  batch.problems = std::move(problems);
  return batch;
}

TEST(Remembered, AProblemStartsWhereItWasLeft) {
  Remembered kept(1);
  const Tensor z = at::randn({3, 3, 2}), zeros = at::zeros({3, 3, 2});
  kept.keep(batch_of({4, 9, 2}), z);
  const Tensor z0 = kept.start(batch_of({2, 5, 4}), zeros);
  EXPECT_TRUE(at::equal(z0[0], z[2]));
  EXPECT_TRUE(at::equal(z0[1], zeros[1])) << "it was never seen";
  EXPECT_TRUE(at::equal(z0[2], z[0]));
  kept.keep(batch_of({4}), z.narrow(0, 1, 1));
  EXPECT_TRUE(at::equal(kept.start(batch_of({4}), zeros.narrow(0, 0, 1))[0], z[1]));
  Tensor broken = z.clone();
  broken[0][1][1] = NAN;
  kept.keep(batch_of({4, 9, 2}), broken);
  EXPECT_TRUE(at::equal(kept.start(batch_of({4}), zeros.narrow(0, 0, 1))[0], z[1]))
      << "what is not finite is no start";
  EXPECT_EQ(kept.count(), 3u);
}

TEST(Remembered, WhatDoesNotFitIsNotKept) {
  Remembered kept(1);
  const Tensor z = at::ones({3, 128, 1024});  // half a megabyte each
  kept.keep(batch_of({7, 8, 9}), z);
  EXPECT_EQ(kept.count(), 2u);
  EXPECT_EQ(kept.bytes(), 1 << 20);
  const Tensor z0 = kept.start(batch_of({7, 8, 9}), at::zeros_like(z));
  EXPECT_EQ(z0[1].min().item<float>(), 1);
  EXPECT_EQ(z0[2].max().item<float>(), 0);
  Remembered wide(2);
  wide.keep(batch_of({7, 8, 9}), z);
  EXPECT_EQ(wide.count(), 3u);
  kept.restore(wide.state());
  EXPECT_EQ(kept.count(), 2u) << "a lower bound holds of a checkpoint too";
}

TEST(Remembered, StatesOfSeveralShapesComeBackFromACheckpoint) {
  Remembered kept(1), other(1);
  const Tensor a = at::randn({2, 3, 2}), b = at::randn({1, 5, 2});
  kept.keep(batch_of({1, 3}), a);
  kept.keep(batch_of({2}), b);
  other.restore(kept.state());
  EXPECT_EQ(other.bytes(), kept.bytes());
  EXPECT_TRUE(at::equal(other.start(batch_of({3}), at::zeros({1, 3, 2}))[0], a[1]));
  EXPECT_TRUE(at::equal(other.start(batch_of({2}), at::zeros({1, 5, 2}))[0], b[0]));
  EXPECT_SAYS(error_of([&] {
                other.start(batch_of({2}), at::zeros({1, 4, 2}));
              }),
              "problem 2 was left in a state of shape [5, 2]");
  NamedTensors cut = kept.state();
  cut["z"] = cut.at("z").narrow(0, 0, 3);
  EXPECT_SAYS(error_of([&] { other.restore(cut); }), "do not add up");
  cut.erase("z");
  EXPECT_SAYS(error_of([&] { other.restore(cut); }), "'remembered.z' is missing");
  other.restore({});
  EXPECT_EQ(other.count(), 0u);
}

double evaluations(Trainer& trainer, int64_t epochs) {
  double sum = 0;
  for (int64_t step = 0; step < epochs * kPool / kBatch; ++step) sum += trainer.step().evaluations;
  return sum / double(epochs * kPool / kBatch);
}

TEST(Remembered, SavesEvaluationsFromTheSecondEpochOnAndChangesNoResult) {
  Trainer cold = trainer_of(small(StartKind::Zero, 1e-5));
  Trainer warm = trainer_of(small(StartKind::Remembered, 1e-5));
  const double first = evaluations(cold, 1);
  EXPECT_EQ(evaluations(warm, 1), first) << "nothing is remembered in the first epoch";
  const double from_zeros = evaluations(cold, 6), from_memory = evaluations(warm, 6);
  EXPECT_LT(from_memory, 0.8 * from_zeros) << from_zeros;
  for (const auto& [name, tensor] : cold.weights())
    EXPECT_TRUE(at::allclose(tensor, warm.weights().at(name), 1e-3, 1e-4)) << name;
  EXPECT_NEAR(cold.evaluate_valid().loss, warm.evaluate_valid().loss, 1e-4);
}

TEST(Remembered, ResumesToTheSameBits) {
  for (const int64_t shards : {1, 2}) {
    TrainOptions options = small(StartKind::Remembered);
    options.loop.batch.shards = shards;
    Trainer whole = trainer_of(options), part = trainer_of(options), resumed = trainer_of(options);
    for (int step = 0; step < 10; ++step) whole.step();
    for (int step = 0; step < 7; ++step) part.step();
    resumed.restore(held(part));
    for (int step = 7; step < 10; ++step) resumed.step();
    const NamedTensors a = whole.state(), b = resumed.state();
    ASSERT_EQ(a.size(), b.size());
    ASSERT_TRUE(a.count("remembered.z"));
    for (const auto& [name, tensor] : a) EXPECT_TRUE(at::equal(tensor, b.at(name))) << name;
  }
}

TEST(Remembered, NothingToRememberIsAnError) {
  const auto says = [](const std::function<void(TrainOptions&)>& change) {
    TrainOptions options = small(StartKind::Remembered);
    change(options);
    return error_of([&] { trainer_of(options); });
  };
  EXPECT_SAYS(says([](TrainOptions& o) { o.task = PrefixSums{.length = 6, .test_lengths = {}}; }),
              "task prefix-sums draws its problems anew in each epoch");
  EXPECT_SAYS(says([](TrainOptions& o) { o.equilibrium.gradient = Unrolled{4}; }),
              "start = remembered with gradient unrolled");
  EXPECT_SAYS(says([](TrainOptions& o) { o.loop.path.carry = 3; }),
              "start = remembered with carry = 3");
  EXPECT_SAYS(says([](TrainOptions& o) { o.model.depth.depth = 3; }),
              "start = remembered with depth = 3");
  TrainOptions text = testing::small_options();
  text.loop.path.start.kind = StartKind::Remembered;
  testing::Scratch scratch;
  testing::spill(scratch / "text.txt", testing::small_text());
  EXPECT_SAYS(error_of([&] { Trainer(text, load(text.task, (scratch / "text.txt").string())); }),
              "start = remembered with task bytes");
  TrainOptions options;
  EXPECT_SAYS(error_of([&] {
                const Assignments given{{"start_limit_mb", "3"}};
                assign_options(options, given);
                settle(options, given);
              }),
              "start-limit-mb = 3: nothing is kept");
}

}  // namespace
}  // namespace deq
