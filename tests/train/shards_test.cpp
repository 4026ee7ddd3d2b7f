// A step of several shards is the step of the whole batch, to rounding; what is drawn hangs on
// where it is drawn, not on what was drawn before; and an evaluation does not hang on it at all.
#include "deq/train/shards.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "deq/base/fields.h"
#include "deq/solvers/anderson.h"
#include "deq/tasks/prefix_sums.h"
#include "deq/train/trainer.h"
#include "tests/train/plain_step.h"

namespace deq {
namespace {

using at::Tensor;
using testing::plain_options;
using testing::small_corpus;

TEST(Shards, CutABatchIntoConsecutiveRowsAndJoinItAgain) {
  const Shards shards(3, alone());
  const Tensor tokens = at::arange(14, at::kLong).view({7, 2});
  const Batch batch{.tokens = tokens, .targets = -tokens, .first_lane = 10, .anew = {0, 3, 6}};
  std::vector<Tensor> parts;
  int64_t next = 0;
  for (const int64_t k : shards.own()) {
    const Batch part = shards.part(batch, k);
    EXPECT_EQ(part.first_lane, 10 + next);
    for (int64_t row = 0; row < part.tokens.size(0); ++row, ++next) {
      EXPECT_TRUE(at::equal(part.tokens[row], tokens[next]));
      EXPECT_TRUE(at::equal(part.targets[row], -tokens[next]));
    }
    parts.push_back(part.tokens);
  }
  EXPECT_EQ(next, 7);
  EXPECT_EQ(shards.part(batch, 0).anew, std::vector<int64_t>{0});
  EXPECT_EQ(shards.part(batch, 1).anew, std::vector<int64_t>{1});  // rows 2 and 3
  EXPECT_EQ(shards.part(batch, 2).anew, std::vector<int64_t>{2});  // rows 4 to 6
  EXPECT_TRUE(at::equal(shards.join(parts, 7), tokens));
  const Tensor two = tokens.narrow(0, 0, 2);  // the first shard has no row
  EXPECT_TRUE(at::equal(shards.join({{}, two.narrow(0, 0, 1), two.narrow(0, 1, 1)}, 2), two));
}

TEST(Shards, HistoriesAreThoseOfTheirRows) {
  const Shards shards(2, alone());
  const Histories whole{
      {.z = at::randn({4, 3, 2}), .x = at::randn({4, 3, 5}), .hidden = {0, 0, 2, 1}},
      {.z = at::randn({4, 3, 2})}};
  const std::vector<Histories> parts = shards.split(whole);
  ASSERT_EQ(parts.size(), 2u);
  EXPECT_TRUE(parts[0][0].hidden.empty());
  EXPECT_EQ(parts[1][0].hidden, (std::vector<int64_t>{2, 1}));
  EXPECT_TRUE(at::equal(parts[1][0].x, whole[0].x.narrow(0, 2, 2)));
  const Histories again = shards.join(parts, 4);
  for (const size_t level : {0, 1}) {
    EXPECT_TRUE(at::equal(again[level].z, whole[level].z));
    EXPECT_EQ(again[level].x.defined(), level == 0);
    EXPECT_EQ(again[level].hidden, whole[level].hidden);
  }
  EXPECT_TRUE(shards.join({Histories{}, Histories{}}, 4).empty());
}

/// Problems of which one has many targets and the others few: a mean of means would be another.
Corpus uneven_problems() {
  Corpus corpus =
      load(Task(PrefixSums{.length = 8, .problems = {.train = 12, .valid = 7, .test = 5}}), "");
  Tensor targets = corpus.train.targets.clone();
  for (int64_t s = 0; s < targets.size(0); ++s) {
    if (s % 4 != 0) targets[s].narrow(0, 1, 7).fill_(-1);
  }
  corpus.train.targets = targets;
  return corpus;
}

TrainOptions of_problems() {
  TrainOptions options = plain_options();
  options.task = PrefixSums{};
  options.model.embedding.tie_weights = false;
  options.loop.batch = {.batch = 6, .history = 0};
  return options;
}

void expect_the_step_of_the_whole(TrainOptions options, const Corpus& corpus, int64_t count) {
  Trainer whole(options, corpus);
  options.loop.batch.shards = count;
  Trainer parts(options, corpus);
  const auto before = whole.model().clone();
  for (int step = 0; step < 3; ++step) {
    const StepReport a = whole.step(), b = parts.step();
    EXPECT_NEAR(b.loss, a.loss, 1e-5 * a.loss);
    EXPECT_NEAR(b.gradient_norm, a.gradient_norm, 1e-4 * a.gradient_norm);
    EXPECT_NEAR(b.residual, a.residual, 1e-3 * a.residual);
    EXPECT_DOUBLE_EQ(b.evaluations, a.evaluations);
    EXPECT_EQ(b.jacobian_estimates, a.jacobian_estimates);
  }
  const double moved = testing::distance(*before, whole.model());
  EXPECT_GT(moved, 1e-3);
  EXPECT_LT(testing::distance(whole.model(), parts.model()), 1e-3 * moved);
}

TEST(Shards, MakeTheStepOfTheWholeBatch) {
  TrainOptions text = plain_options();
  text.loop.batch.accumulate = 2;
  text.loop.stability.clip = 0.1;
  expect_the_step_of_the_whole(text, small_corpus(), 3);
  for (const int64_t count : {2, 3, 6})
    expect_the_step_of_the_whole(of_problems(), uneven_problems(), count);
}

/// Of problems of two bits some are right before anything is learned.
TEST(Shards, WeighTheRestOfAllRows) {
  TrainOptions options = of_problems();
  options.loop.batch.batch = 20;
  options.loop.path.rest_weight = 30;
  const Corpus corpus =
      load(Task(PrefixSums{.length = 2, .problems = {.train = 40, .valid = 4, .test = 4}}), "");
  expect_the_step_of_the_whole(options, corpus, 5);
  Trainer whole(options, corpus);
  options.loop.batch.shards = 5;
  Trainer parts(options, corpus);
  const double rest = whole.step().rest;
  EXPECT_GT(rest, 0);
  EXPECT_NEAR(parts.step().rest, rest, 1e-4 * rest);
}

/// The estimate and the residual count as rows do.
TEST(Shards, WeighWhatIsAMeanOverRows) {
  TrainOptions stirred = plain_options();
  stirred.loop.stability.jacobian_weight = 2;
  stirred.loop.stability.jacobian_frequency = 1;
  stirred.loop.batch.shards = 3;
  Trainer three(stirred, small_corpus());
  stirred.loop.batch.shards = 1;
  Trainer one(stirred, small_corpus());
  double of_three = 0, of_one = 0;
  for (int step = 0; step < 8; ++step) {
    of_three += three.step().jacobian;
    of_one += one.step().jacobian;
  }
  EXPECT_NEAR(of_three, of_one, 0.3 * of_one);  // other probes
}

TEST(Shards, DrawByPlaceAndNotByAState) {
  TrainOptions options = testing::small_options();
  options.loop.batch.shards = 2;
  Trainer one(options, small_corpus()), other(options, small_corpus());
  for (int step = 0; step < 6; ++step) {
    at::rand({3});  // somebody else's
    const double loss = one.step().loss;
    EXPECT_EQ(loss, other.step().loss) << step;
  }
}

/// Features that no row keeps have no gradient: half of them where all draw alike.
TEST(Shards, OfAStepDrawEachForItself) {
  TrainOptions options = testing::small_options();
  Corpus corpus = small_corpus();
  corpus.train.tokens = at::tensor(std::vector<int64_t>(200, 7), at::kLong);  // all rows are alike
  options.model.input_dropout = 0.5;
  options.model.embedding.tie_weights = false;
  options.loop.batch = {.batch = 2, .length = 4, .history = 0, .shards = 2};
  options.loop.stability = {.clip = 0};
  options.loop.optimization = {.optimizer = Sgd{}, .schedule = {.decay = ConstantDecay{}}};
  int64_t kept = 0, steps = 40;
  Trainer trainer(options, corpus);
  for (int64_t step = 0; step < steps; ++step) {
    const Tensor before = named_tensors(trainer.model()).at("embedding.table0")[7].clone();
    trainer.step();
    kept +=
        before.ne(named_tensors(trainer.model()).at("embedding.table0")[7]).sum().item<int64_t>();
  }
  const double share = double(kept) / double(steps * 16);  // 3 / 4 of two draws, 1 / 2 of one
  EXPECT_GT(share, 0.68);
  EXPECT_LT(share, 0.82);
}

TEST(Shards, GoOnToTheSameBits) {
  for (const bool text : {true, false}) {
    TrainOptions options = text ? testing::small_options() : testing::small_copy_options();
    options.loop.batch.shards = 2;
    if (text) options.loop.batch.restart = 0.3;
    const Corpus corpus = text ? small_corpus() : load(options.task, "");
    Trainer whole(options, corpus), resumed(options, corpus);
    NamedTensors state;
    std::vector<double> losses;
    for (int step = 0; step < 10; ++step) {
      if (step == 5) {
        for (const auto& [name, tensor] : whole.state()) state[name] = tensor.clone();
      }
      losses.push_back(whole.step().loss);
    }
    resumed.step();
    resumed.restore(state);
    for (size_t step = 5; step < 10; ++step) EXPECT_EQ(resumed.step().loss, losses[step]) << step;
    const NamedTensors a = whole.state(), b = resumed.state();
    for (const auto& [name, tensor] : a) EXPECT_TRUE(at::equal(tensor, b.at(name))) << name;
  }
}

void expect_equal(const Evaluation& a, const Evaluation& b) {
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_EQ(a.loss, b.loss);
  EXPECT_EQ(a.mean_residual, b.mean_residual);
  EXPECT_EQ(a.worst_residual, b.worst_residual);
  EXPECT_EQ(a.converged_share, b.converged_share);
  EXPECT_EQ(a.unconverged, b.unconverged);
  EXPECT_EQ(a.evaluations, b.evaluations);
  EXPECT_EQ(a.answer_loss, b.answer_loss);
  EXPECT_EQ(a.right_share, b.right_share);
  EXPECT_EQ(a.exact_share, b.exact_share);
}

TEST(Shards, DoNotChangeABitOfAnEvaluation) {
  for (const bool text : {true, false}) {
    TrainOptions options = text ? testing::small_options() : testing::small_copy_options();
    options.eval = {.lanes = 7, .batch = 5, .length = 9, .history = 6};
    options.model.initial = {.init_std = 0.4, .embedding_init_std = 0.5};
    Trainer trainer(options, text ? small_corpus() : load(options.task, ""));
    const Evaluation whole = trainer.evaluate_valid();
    for (const int64_t count : {2, 3, 8})  // of 5 rows, and of what is left of 7
      expect_equal(evaluate(trainer.model(), trainer.corpus().valid, options.equilibrium,
                            options.eval, {}, Shards(count, alone())),
                   whole);
  }
}

TEST(Shards, AreWrittenDownWhereThereAreSeveral) {
  const auto written = [](int64_t count) {
    TrainOptions options;
    options.loop.batch.shards = count;
    int64_t lines = 0;
    for (const OptionInfo& info : options_in_force(options)) lines += info.key == "shards";
    return lines;
  };
  EXPECT_EQ(written(1), 0);  // as it was before there were any
  EXPECT_EQ(written(4), 1);
}

TEST(Shards, ThatDoNotDivideAreRefused) {
  TrainOptions options = testing::small_options();
  options.loop.batch.shards = 3;
  EXPECT_SAYS(testing::error_of([&] { Trainer(options, small_corpus()); }),
              "batch = 4 with shards = 3; expected a multiple");
  options.loop.batch.shards = 2;
  options.equilibrium.solver = Anderson{.scope = Scope::Whole};
  EXPECT_SAYS(testing::error_of([&] { Trainer(options, small_corpus()); }),
              "solver-scope = whole with shards = 2: a batch is solved as one; expected sample");
}

}  // namespace
}  // namespace deq
