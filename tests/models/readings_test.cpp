// What a symbol stands for to a model, and answers of several places from one state.
#include "deq/heads/readings.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include "deq/cells/convolution.h"
#include "deq/cells/groups.h"
#include "deq/cells/recurrent.h"
#include "deq/models/model.h"
#include "tests/base/scratch.h"

namespace deq {
namespace {

using at::Tensor;
using testing::error_of;

Tensor parameter(const torch::nn::Module& module, const std::string& name) {
  return module.named_parameters()[name];
}

/// Of problems (2, 4) or (2, 4, 6), of 8 symbols and as many answers.
ModelOptions lstm(Reading reading, bool pool = false) {
  ModelOptions options;
  options.cell = Lstm{{.width = 7}};
  options.depth.depth = 1;
  options.embedding.tie_weights = false;
  options.initial = {.init_std = 0.5, .embedding_init_std = 0.5};
  options.ends = {.reading = reading, .row = 6, .pool = pool};
  return options;
}

std::shared_ptr<Model> model_of(const ModelOptions& options, const Vocabularies& symbols) {
  at::manual_seed(4);
  auto model = std::make_shared<Model>(options, symbols);
  model->to(at::kDouble);
  model->eval();
  return model;
}

TEST(Readings, AValueIsAShareOfTheLargest) {
  const auto model = model_of(lstm(Reading::Values), {8, 5});
  const Tensor tokens = at::randint(8, {2, 4}, at::kLong), x = model->read(tokens);
  const Tensor weight = parameter(*model, "reader.weight"), bias = parameter(*model, "reader.bias");
  const Tensor expected = (tokens.to(at::kDouble) / 7).unsqueeze(2) * weight.select(1, 0) + bias;
  EXPECT_TRUE(at::allclose(x, expected, 0, 1e-12));
  EXPECT_EQ(bias.abs().max().item<double>(), 0);
  EXPECT_SAYS(error_of([&] { model->embedding(); }), "reading = values: there is no embedding");
}

TEST(Readings, ARowIsAPlace) {
  const auto model = model_of(lstm(Reading::Rows), {8, 5});
  const Tensor tokens = at::randint(8, {2, 4, 6}, at::kLong), x = model->read(tokens);
  ASSERT_EQ(x.sizes(), (at::IntArrayRef{2, 4, 7}));
  const Tensor expected =
      at::matmul(tokens.to(at::kDouble) / 7, parameter(*model, "reader.weight").t());
  EXPECT_TRUE(at::allclose(x, expected, 0, 1e-12));
  EXPECT_SAYS(error_of([&] { model->read(tokens.narrow(2, 0, 5)); }),
              "tokens of shape [2, 4, 5]; expected grids of rows of 6");
  EXPECT_SAYS(error_of([&] { model->read(tokens.flatten(1)); }), "expected grids of rows of 6");
}

TEST(Readings, BitsAreReadAndAnsweredEachByItself) {
  const auto model = model_of(lstm(Reading::Bits), {10, 8});  // 3 bits, and two other symbols
  const Tensor weight = parameter(*model, "reader.weight");   // (3, 7)
  const Tensor x = model->read(at::arange(10, at::kLong).unsqueeze(0))[0];
  for (int64_t number = 0; number < 8; ++number) {
    Tensor expected = at::zeros({7}, at::kDouble);
    for (int64_t bit = 0; bit < 3; ++bit)
      if (number >> (2 - bit) & 1) expected = expected + weight[bit];
    EXPECT_TRUE(at::allclose(x[number], expected, 0, 1e-12)) << number;
  }
  EXPECT_TRUE(at::equal(x.narrow(0, 8, 2), parameter(*model, "reader.others")));

  const Tensor z = at::randn({2, 4, 7}, at::kDouble), targets = at::randint(8, {2, 4}, at::kLong);
  const Tensor all = model->log_probabilities(z);
  ASSERT_EQ(all.sizes(), (at::IntArrayRef{2, 4, 8}));
  EXPECT_TRUE(at::allclose(all.exp().sum(2), at::ones({2, 4}, at::kDouble)));
  EXPECT_TRUE(
      at::allclose(model->loss(z, targets), -all.gather(2, targets.unsqueeze(2)).squeeze(2)));
  const Tensor one = at::linear(z, parameter(*model, "bits.weight")).sigmoid();  // of each bit
  EXPECT_TRUE(at::allclose(all.select(2, 5).exp(),
                           one.select(2, 0) * (1 - one.select(2, 1)) * one.select(2, 2)));
  for (const Vocabularies& symbols : {Vocabularies{10, 7}, {7, 8}})
    EXPECT_SAYS(error_of([&] { model_of(lstm(Reading::Bits), symbols); }),
                "expected the numbers of some bits, and no fewer");
}

// Whatever they share, the loss is that of the probabilities that are shown.
TEST(Readings, ALossIsOfTheProbabilities) {
  for (const auto& [reading, pool] : {std::pair{Reading::Rows, false},
                                      {Reading::Rows, true},
                                      {Reading::Values, true},
                                      {Reading::Values, false},
                                      {Reading::Symbols, true}}) {
    const auto model = model_of(lstm(reading, pool), {8, 5});
    const Tensor z = at::randn({2, 4, 7}, at::kDouble);
    const std::vector<int64_t> places =
        reading == Reading::Rows ? std::vector<int64_t>{2, 4, 6} : std::vector<int64_t>{2, 4};
    const Tensor targets = at::randint(-1, 5, places, at::kLong);
    const Tensor all = model->log_probabilities(z);
    ASSERT_EQ(all.sizes().slice(0, int64_t(places.size())), at::IntArrayRef(places));
    const Tensor expected =
        -all.gather(-1, targets.clamp_min(0).unsqueeze(-1)).squeeze(-1).masked_fill(targets < 0, 0);
    EXPECT_TRUE(at::allclose(model->loss(z, targets), expected, 0, 1e-12));
    const Tensor moved = at::roll(z, 1, 1), other = model->log_probabilities(moved);
    EXPECT_EQ(at::allclose(all, other), pool) << "pooled: the order of places is nothing";
    if (reading == Reading::Rows && !pool) {
      EXPECT_TRUE(at::allclose(at::roll(all, 1, 1), other));
    }
  }
}

TEST(Readings, AGridsStatesArePooled) {
  ModelOptions options = lstm(Reading::Values, true);
  options.cell = Convolution{.width = 7, .dimensions = 2};
  options.depth.depth = 0;
  const auto model = model_of(options, {8, 5});
  const Tensor tokens = at::randint(8, {2, 4, 6}, at::kLong);
  EXPECT_EQ(model->read(tokens).sizes(), (at::IntArrayRef{2, 4, 6, 7}));
  const Tensor z = at::randn({2, 4, 6, 7}, at::kDouble), all = model->log_probabilities(z);
  ASSERT_EQ(all.sizes(), (at::IntArrayRef{2, 4, 6, 5}));
  const Tensor expected =
      at::linear(z.mean({1, 2}), parameter(*model, "classes.weight")).log_softmax(1);
  EXPECT_TRUE(at::allclose(all.select(1, 3).select(1, 5), expected));
  EXPECT_TRUE(at::allclose(all.select(1, 0).select(1, 2), expected));
  Tensor targets = at::full({2, 4, 6}, -1, at::kLong);
  targets[0][3][5] = 4;
  const Tensor loss = model->loss(z, targets);
  EXPECT_NEAR(loss.sum().item<double>(), -expected[0][4].item<double>(), 1e-12);
  EXPECT_EQ(loss.ne(0).sum().item<int64_t>(), 1);
}

TEST(Readings, SymbolsOfTheirOwnAreReadAsTheyAre) {
  ModelOptions options;
  options.cell = Groups{.width = 12, .inner = 6, .groups = "all"};
  options.ends.reading = Reading::Values;
  EXPECT_SAYS(error_of([&] {
                model_of(options, {4, 3});
              }),
              "reading = values: cell groups reads places and symbols; expected symbols");
}

TEST(Readings, ACloneIsTheSame) {
  for (const Reading reading : {Reading::Values, Reading::Bits}) {
    const auto model = model_of(lstm(reading), {10, 8}), copy = model->clone();
    const Tensor tokens = at::randint(8, {2, 4}, at::kLong);
    const Tensor z = at::randn({2, 4, 7}, at::kDouble);
    EXPECT_TRUE(at::equal(model->read(tokens), copy->read(tokens)));
    EXPECT_TRUE(at::equal(model->log_probabilities(z), copy->log_probabilities(z)));
  }
}

}  // namespace
}  // namespace deq
