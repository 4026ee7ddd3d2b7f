// Real values read and answered: what a place sees, what it is trained by, and that every cell can.
#include "deq/heads/values.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include <cmath>

#include "deq/base/levels.h"
#include "deq/base/quantiles.h"
#include "deq/cells/convolution.h"
#include "deq/cells/groups.h"
#include "deq/cells/recurrent.h"
#include "deq/cells/transformer.h"
#include "deq/models/model.h"
#include "deq/solvers/picard.h"
#include "tests/base/scratch.h"

namespace deq {
namespace {

using at::Tensor;
using testing::error_of;

constexpr int64_t kContext = 5, kPlaces = 8, kColumns = 2;

ModelOptions lstm(const ValueOptions& values = {}) {
  ModelOptions options;
  options.cell = Lstm{{.width = 7}};
  options.depth.depth = 1;
  options.initial = {.init_std = 0.5, .embedding_init_std = 0.5};
  options.ends = {.reading = Reading::Series, .values = values};
  return options;
}

std::shared_ptr<Model> model_of(const ModelOptions& options, int64_t columns = kColumns) {
  at::manual_seed(4);
  auto model = std::make_shared<Model>(options, Vocabularies{columns + kMarks, columns + kMarks});
  model->to(at::kDouble);
  model->eval();
  return model;
}

Tensor ids_of(const Tensor& values) {
  Tensor ids = at::empty(values.sizes(), at::kLong);
  for (int64_t i = 0; i < values.numel(); ++i)
    ids.view({-1})[i] = level_of(values.reshape({-1})[i].item<double>());
  return ids;
}

/// Two windows, (2, kPlaces, kColumns), the last places asked; and their targets.
struct Window {
  Tensor values, tokens, targets;
  Window() {
    at::manual_seed(7);
    values = at::randn({2, kPlaces, kColumns}, at::kDouble);
    tokens = ids_of(values);
    targets = tokens.clone();
    tokens.narrow(1, kContext, kPlaces - kContext).fill_(kAsked);
    targets.narrow(1, 0, kContext).fill_(-1);
    tokens[0][1][1] = kMissing;
    targets[1][6][0] = -1;
  }
};

TEST(Values, APlaceSeesValuesMarksAndHowFarItIs) {
  const auto model = model_of(lstm());
  const Window window;
  const Tensor x = model->read(window.tokens);
  ASSERT_EQ(x.sizes(), (at::IntArrayRef{2, kPlaces, 7}));
  const Tensor weight = model->named_parameters()["reader.weight"];
  ASSERT_EQ(weight.sizes(), (at::IntArrayRef{7, 2 * kColumns + 2}));
  for (int64_t b = 0; b < 2; ++b) {
    for (int64_t t = 0; t < kPlaces; ++t) {
      Tensor seen = at::zeros({2 * kColumns + 2}, at::kDouble);
      for (int64_t c = 0; c < kColumns && t < kContext; ++c) {
        const bool missing = b == 0 && t == 1 && c == 1;
        if (!missing) seen[c] = window.values[b][t][c];
        seen[kColumns + c] = missing ? 1 : 0;
      }
      if (t >= kContext) {
        seen[2 * kColumns] = 1;
        seen[2 * kColumns + 1] = double(t - kContext + 1) / kPlaces;
      }
      ASSERT_TRUE(at::allclose(x[b][t], at::mv(weight, seen), 0, 1e-9)) << b << " " << t;
    }
  }
}

TEST(Values, OneNumberIsTrainedByItsError) {
  const Window window;
  for (const ValueError error : {ValueError::Squared, ValueError::Absolute}) {
    const auto model = model_of(lstm({.head = ValueAnswer::Values, .error = error}));
    const Tensor z = at::randn({2, kPlaces, model->cell().state_width()}, at::kDouble);
    const Tensor values = model->values(z), loss = model->loss(z, window.targets);
    ASSERT_EQ(values.sizes(), (at::IntArrayRef{2, kPlaces, kColumns, 1}));
    EXPECT_TRUE(model->percents().empty());
    const Tensor scored = window.targets.ge(0);
    EXPECT_EQ(scored.sum().item<int64_t>(), 2 * 3 * kColumns - 1);
    const Tensor e = (values.squeeze(3) - window.values);
    const Tensor wanted = (error == ValueError::Squared ? e * e : e.abs()) * scored;
    EXPECT_TRUE(at::allclose(loss, wanted, 0, 1e-8));
  }
}

TEST(Values, QuantilesAreTrainedByThePinballLoss) {
  const Window window;
  const std::vector<int64_t> percents{10, 50, 75};
  const auto model = model_of(lstm({.quantiles = percents}));
  EXPECT_EQ(model->percents(), percents);
  const Tensor z = at::randn({2, kPlaces, model->cell().state_width()}, at::kDouble);
  const Tensor values = model->values(z), loss = model->loss(z, window.targets);
  ASSERT_EQ(values.sizes(), (at::IntArrayRef{2, kPlaces, kColumns, 3}));
  for (int64_t b = 0; b < 2; ++b) {
    for (int64_t t = 0; t < kPlaces; ++t) {
      for (int64_t c = 0; c < kColumns; ++c) {
        double wanted = 0;
        const double y = window.values[b][t][c].item<double>();
        for (int64_t k = 0; k < 3; ++k) {
          const double q = double(percents[size_t(k)]) / 100, f = values[b][t][c][k].item<double>();
          wanted += (y >= f ? q * (y - f) : (1 - q) * (f - y)) / 3;
        }
        if (window.targets[b][t][c].item<int64_t>() < 0) wanted = 0;
        ASSERT_NEAR(loss[b][t][c].item<double>(), wanted, 1e-8);
      }
    }
  }
}

/// The quantile of a sample is where its mean pinball loss is least.
TEST(Values, PinballIsLeastAtTheQuantile) {
  const Tensor sample = at::arange(1, 100, at::kDouble);  // 1 to 99
  for (const int64_t percent : {5, 50, 90}) {
    double best = 0, least = INFINITY;
    for (int64_t f = 1; f < 100; ++f) {
      const Tensor forecast = at::full({99, 1}, double(f), at::kDouble);
      const double loss = pinball(forecast, sample, {percent}).mean().item<double>();
      if (loss < least) best = double(f);
      least = std::min(least, loss);
    }
    EXPECT_EQ(best, double(percent));
  }
}

/// Of cells that see what is before a place, and of those that see both directions; equilibria and
/// levels: a loss with gradients for reader and head, and answers where they are asked.
TEST(Values, EveryKindOfCellCan) {
  const Window window;
  std::vector<ModelOptions> all{lstm()};
  for (const int64_t depth : {0, 2}) {
    all.push_back(lstm());
    all.back().cell = Convolution{.width = 8, .dimensions = 1};
    all.back().depth.depth = depth;
    all.push_back(lstm());
    all.back().cell = Transformer{.width = 8, .heads = 2, .inner = 8};
    all.back().depth.depth = depth;
  }
  for (const ModelOptions& options : all) {
    const auto model = model_of(options);
    ForwardOptions how;
    how.equilibrium.solver = Picard{};
    how.equilibrium.stop = {.max_steps = 10};
    const LayerOutput output = model->forward(window.tokens, {}, how);
    const Tensor loss = model->loss(output.z, window.targets).sum();
    loss.backward();
    for (const auto& item : model->named_parameters()) {
      const bool end =
          item.key().rfind("reader.", 0) == 0 || item.key().rfind("quantiles.", 0) == 0;
      if (!end) continue;
      ASSERT_TRUE(item.value().grad().defined()) << options.cell.name() << " " << item.key();
      EXPECT_GT(item.value().grad().abs().max().item<double>(), 0)
          << options.cell.name() << " " << item.key();
    }
    EXPECT_EQ(model->values(output.z).sizes(), (at::IntArrayRef{2, kPlaces, kColumns, 7}));
    EXPECT_TRUE(at::allclose(model->clone()->values(output.z), model->values(output.z)));
  }
}

TEST(Values, WhatIsAskedIsNotSeen) {
  // A causal cell and one of both directions: the answers depend on the context alone, as nothing
  // else stands in the tokens; and they do depend on all of it.
  const Window window;
  const auto model = model_of(lstm());
  const auto answer = [&](const Tensor& tokens) {
    return model->values(model->forward(tokens, {}, {}).z).narrow(1, kContext, 3);
  };
  const Tensor before = answer(window.tokens);
  for (int64_t t = 0; t < kContext; ++t) {
    Tensor other = window.tokens.clone();
    other[1][t][0] = level_of(5);
    const Tensor after = answer(other);
    EXPECT_FALSE(at::equal(after[1], before[1])) << t;
    EXPECT_TRUE(at::equal(after[0], before[0])) << t;
  }
}

TEST(Values, BadOptionsAreOneLine) {
  const auto says = [](const ModelOptions& options, int64_t columns = kColumns) {
    return error_of([&] { model_of(options, columns); });
  };
  for (const std::vector<int64_t>& quantiles :
       {std::vector<int64_t>{}, {5, 95}, {50, 50}, {90, 50}, {0, 50}, {50, 100}})
    EXPECT_SAYS(says(lstm({.quantiles = quantiles})),
                "expected numbers from 1 to 99, rising, with");
  EXPECT_SAYS(says(lstm(), 0), "reading = series");
  ModelOptions pooled = lstm();
  pooled.ends.pool = true;
  EXPECT_SAYS(says(pooled), "pool = true");
  ModelOptions groups = lstm();
  groups.depth.depth = 0;
  groups.cell = Groups{};
  EXPECT_SAYS(says(groups), "reading = series: cell groups");
  const auto model = model_of(lstm());
  const Window window;
  const Tensor z = at::zeros({2, kPlaces, model->cell().state_width()}, at::kDouble);
  EXPECT_SAYS(error_of([&] { model->log_probabilities(z); }), "no probabilities");
  EXPECT_SAYS(error_of([&] { model->read(window.tokens.narrow(2, 0, 1)); }), "grids of rows of 2");
  EXPECT_SAYS(error_of([&] { model->read(at::full({1, 2, 2}, kLevels)); }), "token");
  ModelOptions symbols;
  symbols.cell = Lstm{{.width = 7}};
  symbols.depth.depth = 1;
  const Model other(symbols, {5, 5});
  EXPECT_FALSE(other.answers_values());
  EXPECT_SAYS(error_of([&] { other.values(at::zeros({1, 2, 7})); }), "symbols are answered");
}

}  // namespace
}  // namespace deq
