// Adaptive embedding and softmax, parameter counts, and the model's contract.
#include "deq/models/language_model.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "deq/cells/transformer.h"
#include "deq/cells/trellisnet.h"
#include "deq/solvers/anderson.h"

namespace deq {
namespace {

using at::Tensor;

TEST(AdaptiveSoftmax, IsADistributionWhoseLossesStandInOrder) {
  at::manual_seed(2);
  for (const int64_t div_val : {1, 2}) {
    for (const bool tied : {true, false}) {
      EmbeddingOptions options;
      options.cutoffs = {5, 11};
      options.div_val = div_val;
      options.tie_weights = tied;
      options.width = div_val == 1 ? 6 : 8;  // div_val 1 with a projection of its own
      if (div_val == 2) options.tied_projections = {1, 2};
      const Clusters clusters(options, 20, 8);
      AdaptiveEmbedding embedding(clusters, options);
      AdaptiveSoftmax softmax(clusters, options, embedding);
      embedding.initialise(0.5);
      softmax.initialise(0.5);
      const Tensor hidden = at::randn({40, 8});
      const Tensor log_p = softmax.log_probabilities(hidden);
      ASSERT_EQ(log_p.size(1), 20);
      EXPECT_LT((log_p.exp().sum(1) - 1).abs().max().item<double>(), 1e-5);
      const Tensor targets = at::randint(20, {40}, at::kLong);
      const Tensor expected = -log_p.gather(1, targets.unsqueeze(1)).squeeze(1);
      EXPECT_LT((softmax.loss(hidden, targets) - expected).abs().max().item<double>(), 1e-5);
    }
  }
}

TEST(AdaptiveEmbedding, TiedTablesAreOneParameter) {
  ModelOptions options;
  options.cell = Transformer{.width = 8, .heads = 2, .inner = 8};
  LanguageModel tied(options, 30);
  options.embedding.tie_weights = false;
  LanguageModel untied(options, 30);
  EXPECT_EQ(untied.parameter_count(true) - tied.parameter_count(true), 30 * 8);
  std::set<const void*> storages;
  for (const Tensor& p : tied.parameters()) EXPECT_TRUE(storages.insert(p.data_ptr()).second);
}

TEST(AdaptiveEmbedding, BadClustersAreErrors) {
  const auto clusters = [](std::vector<int64_t> cutoffs, int64_t div_val,
                           std::vector<int64_t> tied) {
    EmbeddingOptions options;
    options.cutoffs = std::move(cutoffs);
    options.div_val = div_val;
    options.tied_projections = std::move(tied);
    return Clusters(options, 100, 8);
  };
  EXPECT_THROW(clusters({50, 20}, 1, {}), Error);
  EXPECT_THROW(clusters({100}, 1, {}), Error);
  EXPECT_THROW(clusters({0, 20}, 1, {}), Error);
  EXPECT_THROW(clusters({20, 50}, 4, {}), Error);  // 8 / 4^2 leaves nothing
  EXPECT_THROW(clusters({20}, 2, {2}), Error);
  EXPECT_NO_THROW(clusters({20}, 2, {1}));
}

TEST(LanguageModel, HasThePublishedNumberOfParameters) {
  // WikiText-103, the authors' script: width 700, 10 heads, inner 48,000, cutoffs and div_val 4.
  Transformer cell;
  cell.width = 700;
  cell.heads = 10;
  cell.inner = 48000;
  ModelOptions options;
  options.cell = cell;
  options.embedding.cutoffs = {20000, 40000, 200000};
  options.embedding.div_val = 4;
  options.embedding.tied_projections = {1, 2, 3};
  const LanguageModel model(options, 267735);
  int64_t f = 0;
  for (const auto& item : model.named_parameters()) {
    const bool inside =
        item.key().rfind("cell.", 0) == 0 && item.key().rfind("cell.inject", 0) != 0;
    if (inside) f += item.value().numel();
  }
  EXPECT_EQ(f, 69753000);
  // The published count of all has the three tied projections twice.
  EXPECT_EQ(model.parameter_count(true) + 700 * (175 + 43 + 10), 97851488);
}

TEST(LanguageModel, InitialWeightsHaveTheirDeviationUnderWeightNorm) {
  for (const bool normed : {true, false}) {
    Transformer cell;
    cell.width = 64;
    cell.weight_norm = normed;
    ModelOptions options;
    options.cell = cell;
    options.initial.init_std = 0.07;
    at::manual_seed(1);
    LanguageModel model(options, 20);
    Linear& qkv = *std::dynamic_pointer_cast<Linear>(model.cell().named_modules("", false)["qkv"]);
    EXPECT_NEAR(qkv.weight().std().item<double>(), 0.07, 0.002);
  }
}

TEST(LanguageModel, RefusesWhatDoesNotFit) {
  ModelOptions options;
  Transformer cell{.width = 8, .heads = 2, .inner = 8};
  cell.causal = false;
  options.cell = cell;
  LanguageModel model(options, 20);
  ForwardOptions how;
  how.equilibrium.solver = Anderson{.scope = Scope::Causal};
  const Tensor tokens = at::zeros({1, 4}, at::kLong);
  EXPECT_THROW(model.forward(tokens, {}, how), Error);
  how.equilibrium.solver = Anderson{};
  EXPECT_NO_THROW(model.forward(tokens, {}, how));
  EXPECT_THROW(model.forward(tokens.to(at::kFloat), {}, how), Error);
  EXPECT_THROW(LanguageModel(options, 1), Error);
  options.cell = Transformer{.width = 10, .heads = 4};
  EXPECT_THROW(LanguageModel(options, 20), Error);
}

// The solver's coefficients look only back, and every product has a row's bits whatever stands
// beside it: no tolerance hides a leak here.
TEST(LanguageModel, APrefixHasTheBitsOfTheWholeText) {
  at::manual_seed(31);
  c10::NoGradGuard no_tape;
  const int threads = at::get_num_threads();
  for (const CellOptions& cell :
       {CellOptions(Transformer{.width = 48, .heads = 4, .inner = 200}),
        CellOptions(TrellisNet{.hidden = 50, .output = 30, .kernel = 3})}) {
    ModelOptions options;
    options.cell = cell;
    options.initial = {.init_std = 0.15, .embedding_init_std = 0.3};
    LanguageModel model(options, 23);
    model.eval();
    const Tensor tokens = at::randint(23, {2, 71}, at::kLong);
    ForwardOptions how;
    how.equilibrium.solver = Anderson{.scope = Scope::Causal};
    how.equilibrium.stop = {.max_steps = 25, .rel_tol = 1e-4};
    const Tensor whole = model.forward(tokens, {}, how).z;
    for (const int n : {1, 2}) {
      at::set_num_threads(n);
      for (const int64_t length : {1, 2, 7, 30, 70, 71}) {
        const Tensor prefix = model.forward(tokens.narrow(1, 0, length), {}, how).z;
        EXPECT_TRUE(at::equal(prefix, whole.narrow(1, 0, length))) << length << ", " << n;
      }
    }
    at::set_num_threads(threads);
  }
}

TEST(LanguageModel, GradientsDoNotDependOnTheMode) {
  at::manual_seed(3);
  ModelOptions options;
  options.cell = Transformer{.width = 8, .heads = 2, .inner = 8};
  LanguageModel model(options, 20);
  const Tensor tokens = at::randint(20, {2, 6}, at::kLong);
  std::vector<Tensor> gradients;
  for (const bool training : {true, false}) {
    model.train(training);
    model.zero_grad();
    model.loss(model.forward(tokens, {}, {}).z, tokens).mean().backward();
    gradients.push_back(model.named_parameters()["cell.inject.weight"].grad().clone());
  }
  EXPECT_GT(gradients[0].norm().item<double>(), 0);
  EXPECT_TRUE(at::equal(gradients[0], gradients[1]));
}

TEST(Mixture, IsADistributionAndMoreThanOneSoftmax) {
  at::manual_seed(4);
  for (const std::vector<int64_t>& cutoffs :
       {std::vector<int64_t>{}, std::vector<int64_t>{6, 12}}) {
    ModelOptions options;
    options.cell = TrellisNet{.hidden = 5, .output = 7, .input = 4};  // widths only a mixture joins
    options.embedding.cutoffs = cutoffs;
    options.mixture.experts = 3;
    options.initial.embedding_init_std = 1;
    LanguageModel model(options, 20);
    const Tensor z = at::randn({2, 5, model.cell().state_width()});
    const Tensor log_p = model.log_probabilities(z);
    EXPECT_LT((log_p.exp().sum(2) - 1).abs().max().item<double>(), 1e-5);
    const Tensor targets = at::randint(20, {2, 5}, at::kLong);
    const Tensor expected = -log_p.gather(2, targets.unsqueeze(2)).squeeze(2);
    EXPECT_LT((model.loss(z, targets) - expected).abs().max().item<double>(), 1e-5);
    options.mixture.experts = 1;
    EXPECT_THROW(LanguageModel(options, 20), Error);  // tied, but 7 and 4 wide
    options.embedding.tie_weights = false;
    EXPECT_NO_THROW(LanguageModel(options, 20));
  }
}

TEST(LanguageModel, TargetsOfMinusOneAreNotScored) {
  ModelOptions options;
  options.cell = Transformer{.width = 8, .heads = 2, .inner = 8};
  LanguageModel model(options, 20);
  const Tensor z = at::randn({1, 3, 8});
  const Tensor targets = at::tensor({4, -1, 6}, at::kLong).unsqueeze(0);
  const Tensor loss = model.loss(z, targets);
  EXPECT_EQ(loss[0][1].item<double>(), 0);
  EXPECT_GT(loss[0][2].item<double>(), 0);
  EXPECT_THROW(model.loss(z, targets - 1), Error);
  EXPECT_THROW(model.forward(targets, {}, {}), Error);
  EXPECT_THROW(model.forward(targets + 15, {}, {}), Error);
}

TEST(LanguageModel, WholeWordsAreDroppedFromTheEmbedding) {
  at::manual_seed(8);
  ModelOptions options;
  options.cell = TrellisNet{.hidden = 4, .output = 6, .kernel = 1};
  options.embedding.dropout = 0.5;
  options.embedding.scaled = false;
  LanguageModel model(options, 50);
  const Tensor tokens = at::arange(50, at::kLong).repeat({2, 1});
  const Tensor before = model.embedding().tables()[0].detach().clone();
  const Tensor x = model.embedding().forward(tokens).detach();
  EXPECT_TRUE(at::equal(x[0], x[1]));  // a word is dropped wherever it stands
  const Tensor kept = x[0].abs().sum(1) > 0;
  EXPECT_GT(kept.sum().item<int64_t>(), 10);
  EXPECT_LT(kept.sum().item<int64_t>(), 40);
  EXPECT_TRUE(at::allclose(x[0].index({kept}), 2 * before.index({kept})));
  model.eval();
  EXPECT_TRUE(at::equal(model.embedding().forward(tokens)[0], before));
}

}  // namespace
}  // namespace deq
