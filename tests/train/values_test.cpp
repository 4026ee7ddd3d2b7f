// Scores of real values add up whatever the batch and the shards, and a forecast is what its solve
// gives.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "deq/base/levels.h"
#include "deq/cells/convolution.h"
#include "deq/solvers/picard.h"
#include "deq/train/evaluate.h"
#include "deq/train/forecast.h"
#include "tests/base/scratch.h"

namespace deq {
namespace {

using at::Tensor;
using testing::error_of;
using testing::Scratch;
using testing::spill;

class SeriesModel : public ::testing::Test {
 protected:
  SeriesModel() {
    std::string text = "a,b\n";
    for (int t = 0; t < 150; ++t)
      text += fmt::format("{},{}\n", t % 13 == 4 ? "" : fmt::format("{}", 10 + std::sin(t)),
                          5 * std::cos(t / 3.0) + t);
    spill(scratch / "series.csv", text);
    corpus = task.load(scratch / "series.csv");
    ModelOptions options;
    options.cell = Convolution{.width = 8, .norm = ConvolutionNorm::None};
    options.initial = {.init_std = 0.05, .embedding_init_std = 0.3};
    options.ends.reading = Reading::Series;
    at::manual_seed(3);
    model = std::make_shared<Model>(
        options, Vocabularies{corpus.vocabulary.size(), corpus.vocabulary.size()});
    model->to(at::kDouble);
    model->eval();
    equilibrium.solver = Picard{};
    equilibrium.stop = {.max_steps = 200, .rel_tol = 1e-10};
  }
  Evaluation score(int64_t batch, int64_t shards) {
    return evaluate(*model, corpus.valid, equilibrium, {.batch = batch}, {},
                    Shards(shards, alone()));
  }

  Scratch scratch;
  TimeSeries task{.context = 10, .horizon = 3, .season = 2, .stride = 1};
  Corpus corpus;
  std::shared_ptr<Model> model;
  EquilibriumOptions equilibrium = training_equilibrium();
};

TEST_F(SeriesModel, ScoresDoNotDependOnTheBatchNorOnShards) {
  const Evaluation one = score(64, 1);
  ASSERT_EQ(one.scores.size(), 3u);
  EXPECT_EQ(one.converged_share, 1);
  EXPECT_SAYS(one.scores_text, "MAE ");
  for (const auto& [batch, shards] : {std::pair{1, 1}, {5, 1}, {5, 3}, {2, 4}, {64, 2}}) {
    const Evaluation other = score(batch, shards);
    for (size_t r = 0; r < 3; ++r) {
      EXPECT_EQ(other.scores[r].name, one.scores[r].name);
      for (size_t i = 0; i < one.scores[r].numbers.size(); ++i) {
        const auto& [name, value] = one.scores[r].numbers[i];
        EXPECT_EQ(other.scores[r].numbers[i].first, name);
        EXPECT_NEAR(other.scores[r].numbers[i].second, value, 1e-9 * std::abs(value))
            << name << ": batch " << batch << ", shards " << shards;
      }
    }
  }
}

TEST_F(SeriesModel, AForecastIsWhatItsSolveGives) {
  const Tensor values = at::randn({14, 2}, at::kDouble);
  values[5][0] = NAN;
  const Forecast found = forecast(*model, task, values, 3, {equilibrium});
  const Context context = context_of(values.narrow(0, 4, 10), task.centre);
  const Tensor tokens = at::cat({context.ids, at::full({3, 2}, kAsked, at::kLong)}).unsqueeze(0);
  ForwardOptions how;
  how.equilibrium = for_evaluation(equilibrium);
  c10::NoGradGuard no_tape;
  const Tensor answered = model->values(model->forward(tokens, {}, how).z)[0].narrow(0, 10, 3);
  const Tensor mean = values.narrow(0, 4, 10).nanmean(0);  // back to what was given
  EXPECT_TRUE(
      at::allclose(found.values, std::get<0>(answered.sort(-1)) + mean.view({1, 2, 1}), 0, 1e-8));
  EXPECT_TRUE(at::allclose(found.season[0], values[12], 0, 1e-8)) << "a season of 2 before row 14";
  EXPECT_TRUE(at::allclose(found.season[2], values[12], 0, 1e-8));
  EXPECT_TRUE(at::allclose(found.season[1], values[13], 0, 1e-8));
  EXPECT_TRUE(found.all_converged());
  EXPECT_EQ(found.residuals.size(), 3u);
  EXPECT_LE(found.residuals[0], 1e-10);
  EXPECT_EQ(found.solves, 1);
  EXPECT_GT(found.evaluations, 1);
}

TEST_F(SeriesModel, AForecastGoesOnFromItsMedians) {
  const Tensor values = at::randn({10, 2}, at::kDouble);
  const Forecast first = forecast(*model, task, values, 3, {equilibrium});
  const Forecast whole = forecast(*model, task, values, 7, {equilibrium});
  ASSERT_EQ(whole.values.size(0), 7);
  EXPECT_EQ(whole.solves, 3);
  EXPECT_TRUE(at::equal(whole.values.narrow(0, 0, 3), first.values));
  const Tensor fed = at::cat({values, first.values.select(2, 3)});  // 5, 10, 25, 50
  const Forecast second = forecast(*model, task, fed, 3, {equilibrium});
  EXPECT_TRUE(at::equal(whole.values.narrow(0, 3, 3), second.values));
  for (int64_t t = 0; t < 7; ++t)  // a season of 2, of what is known alone
    EXPECT_TRUE(at::allclose(whole.season[t], values[8 + t % 2], 0, 1e-8)) << t;
  EXPECT_TRUE(at::equal(forecast(*model, task, values, 2, {equilibrium}).values,
                        first.values.narrow(0, 0, 2)));
}

TEST_F(SeriesModel, WhatIsRolledOnFromWhatDidNotConvergeHasNot) {
  equilibrium.stop = {.max_steps = 1, .rel_tol = 1e-10};
  const Forecast found = forecast(*model, task, at::randn({10, 2}, at::kDouble), 4, {equilibrium});
  EXPECT_EQ(found.converged, (std::vector<bool>{false, false, false, false}));
  EXPECT_FALSE(found.all_converged());
}

TEST_F(SeriesModel, NothingIsRolledOnFromWhatIsNotUsable) {
  ModelOptions options = model->options();
  options.depth.depth = 2;
  Model network(options, Vocabularies{corpus.vocabulary.size(), corpus.vocabulary.size()});
  network.to(at::kDouble);
  network.eval();
  const Tensor values = at::randn({10, 2}, at::kDouble);
  EXPECT_TRUE(forecast(network, task, values, 7, {equilibrium}).all_converged());
  for (const double weight : {double(NAN), 1e200, 1e9}) {
    {
      c10::NoGradGuard no_tape;
      for (Tensor& parameter : network.parameters()) parameter.fill_(weight);
    }
    const Forecast found = forecast(network, task, values, 7, {equilibrium});
    EXPECT_EQ(found.solves, 1) << weight;
    EXPECT_EQ(found.values.sizes(), (at::IntArrayRef{7, 2, int64_t(found.percents.size())}));
    EXPECT_EQ(found.converged, std::vector<bool>(7, false));
    EXPECT_TRUE(found.residuals.empty());
    EXPECT_TRUE(found.values.narrow(0, 3, 4).isnan().all().item<bool>());
  }
}

TEST_F(SeriesModel, BadRequestsAreOneLine) {
  const Tensor values = at::zeros({10, 2}, at::kDouble);
  EXPECT_SAYS(error_of([&] { forecast(*model, task, values, 0, {equilibrium}); }), "horizon = 0");
  EXPECT_SAYS(error_of([&] { forecast(*model, task, values.narrow(0, 0, 9), 1, {equilibrium}); }),
              "9 rows; expected task-context = 10");
  model->train();
  EXPECT_SAYS(error_of([&] { forecast(*model, task, values, 1, {equilibrium}); }), "training mode");
}

}  // namespace
}  // namespace deq
