// One position at a time against the whole sequence at once; sampling.
#include "deq/decode/generator.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>

#include "deq/base/safetensors.h"
#include "tests/base/scratch.h"

namespace deq {
namespace {

using at::Tensor;

ModelOptions small_model(NormPlace norm, int64_t window) {
  Transformer cell;
  cell.width = 12;
  cell.heads = 3;
  cell.inner = 20;
  cell.norm = norm;
  cell.window = window;
  ModelOptions options;
  options.cell = cell;
  // About 1.7 / sqrt(width): small weights make a post-norm f nearly the identity.
  options.initial = {.init_std = 0.5, .embedding_init_std = 0.3};
  return options;
}

/// Six tokens at once, then one at a time: after each the log-probabilities (T, V) of the whole.
void expect_same_one_by_one(LanguageModel& model, const EquilibriumOptions& equilibrium,
                            const std::vector<int64_t>& tokens, const Tensor& whole,
                            double tolerance) {
  TextGenerator generator(model, equilibrium, 100);
  generator.feed({tokens.begin(), tokens.begin() + 6});
  for (size_t i = 6;; ++i) {
    const Tensor expected = whole[int64_t(i) - 1];
    EXPECT_LT((generator.log_probabilities() - expected).abs().max().item<double>(), tolerance)
        << "token " << i;
    if (i == tokens.size()) break;
    generator.feed({tokens[i]});
  }
}

std::vector<int64_t> some_tokens() {
  std::vector<int64_t> tokens;
  for (int64_t i = 0; i < 15; ++i) tokens.push_back((i * 5 + 3) % 17);
  return tokens;
}

class OneByOne : public ::testing::TestWithParam<std::tuple<NormPlace, int64_t>> {};

TEST_P(OneByOne, IsTheWholeSequenceAtOnce) {
  at::manual_seed(4);
  constexpr double kTolerance = 1e-7;
  LanguageModel model(small_model(std::get<0>(GetParam()), std::get<1>(GetParam())), 17);
  model.to(at::kDouble);
  model.eval();
  EquilibriumOptions equilibrium;
  equilibrium.solver = Anderson{.scope = Scope::Causal};
  equilibrium.stop = {.max_steps = 300, .rel_tol = kTolerance};
  const std::vector<int64_t> tokens = some_tokens();

  c10::NoGradGuard no_tape;
  ForwardOptions how;
  how.equilibrium = equilibrium;
  const ModelOutput whole = model.forward(at::tensor(tokens, at::kLong).unsqueeze(0), {}, how);
  ASSERT_TRUE(whole.report.converged()) << describe(whole.report);

  expect_same_one_by_one(model, equilibrium, tokens, model.log_probabilities(whole.z)[0], 1e-5);
}

// Pre-published with every key in view has no equilibrium that any solver reaches from these
// weights.
INSTANTIATE_TEST_SUITE_P(Cells, OneByOne,
                         ::testing::Values(std::tuple(NormPlace::Post, 0),
                                           std::tuple(NormPlace::Post, 4),
                                           std::tuple(NormPlace::PrePublished, 4)));

TEST(OneByOne, HoldsForATrellisNet) {
  at::manual_seed(5);
  for (const auto& [kernel, dilation] : {std::pair(2, 1), std::pair(3, 2), std::pair(1, 1)}) {
    ModelOptions options;
    options.cell = TrellisNet{.hidden = 9, .output = 6, .kernel = kernel, .dilation = dilation};
    options.embedding.scaled = false;
    options.initial = {.init_std = 0.3, .embedding_init_std = 0.5};
    LanguageModel model(options, 17);
    model.to(at::kDouble);
    model.eval();
    EquilibriumOptions equilibrium;
    equilibrium.solver = Anderson{.scope = Scope::Causal};
    equilibrium.stop = {.max_steps = 300, .rel_tol = 1e-9};
    c10::NoGradGuard no_tape;
    ForwardOptions how;
    how.equilibrium = equilibrium;
    const ModelOutput whole =
        model.forward(at::tensor(some_tokens(), at::kLong).unsqueeze(0), {}, how);
    ASSERT_TRUE(whole.report.converged()) << describe(whole.report);
    expect_same_one_by_one(model, equilibrium, some_tokens(), model.log_probabilities(whole.z)[0],
                           1e-8);
  }
}

// Each level keeps its own past, so that one token at a time gives what the whole gives, to
// rounding: with shared weights, with untied ones, and for the recurrent networks.
TEST(OneByOne, IsExactForExplicitNetworks) {
  at::manual_seed(6);
  const std::pair<CellOptions, DepthOptions> networks[] = {
      {Transformer{.width = 12, .heads = 3, .inner = 20}, {.depth = 5}},
      {Transformer{.width = 12, .heads = 3, .inner = 20}, {.depth = 3, .tied = false}},
      {Transformer{.width = 12, .heads = 3, .inner = 20},
       {.depth = 3, .tied = false, .injection = false}},
      {TrellisNet{.hidden = 9, .output = 6}, {.depth = 8}},
      {TrellisNet{.hidden = 9, .output = 6, .kernel = 3}, {.depth = 3, .tied = false}},
      {Lstm{{.width = 12}}, {.depth = 2, .tied = false}},
      {Gru{{.width = 12}}, {.depth = 1}},
      {Tcn{.width = 12, .kernel = 3}, {.depth = 3, .tied = false}},
  };
  for (const auto& [cell, depth] : networks) {
    ModelOptions options;
    options.cell = cell;
    options.depth = depth;
    options.initial = {.init_std = 0.4, .embedding_init_std = 0.3};
    LanguageModel model(options, 17);
    model.to(at::kDouble);
    model.eval();
    c10::NoGradGuard no_tape;
    const ModelOutput whole =
        model.forward(at::tensor(some_tokens(), at::kLong).unsqueeze(0), {}, {});
    EXPECT_EQ(whole.report.evaluations, depth.depth);
    SCOPED_TRACE(cell_name(cell));
    expect_same_one_by_one(model, {}, some_tokens(), model.log_probabilities(whole.z)[0], 1e-12);
  }
}

struct Network {
  CellOptions cell;
  DepthOptions depth = {};
};

/// In double, weights that have equilibria.
LanguageModel model_of(const Network& network) {
  at::manual_seed(6);
  ModelOptions options;
  options.cell = network.cell;
  options.depth = network.depth;
  options.initial = {.init_std = 0.4, .embedding_init_std = 0.3};
  LanguageModel model(options, 17);
  model.to(at::kDouble);
  c10::NoGradGuard no_tape;
  for (const auto& item : model.named_parameters()) {
    if (item.key().ends_with("bias")) item.value().normal_(0, 0.2);
  }
  return model;
}

EquilibriumOptions tight() {
  EquilibriumOptions equilibrium;
  equilibrium.solver = Anderson{.scope = Scope::Causal};
  equilibrium.stop = {.max_steps = 400, .rel_tol = 1e-10};
  return equilibrium;
}

class Batches : public ::testing::TestWithParam<Network> {};

// Prompts of different lengths, then texts that are fed one token each, and unequal numbers again.
TEST_P(Batches, ATextDoesNotDependOnTheOthers) {
  LanguageModel model = model_of(GetParam());
  const std::vector<std::vector<int64_t>> prompts{{1, 2}, {3, 4, 5, 6, 7, 8, 9}, {10, 11, 12, 13}};
  const std::vector<std::vector<int64_t>> more{{5}, {6, 7}, {8, 9, 1}};
  for (const int64_t history : {100, 5}) {
    TextGenerator all(model, tight(), history, 3);
    std::vector<TextGenerator> alone(3, TextGenerator(model, tight(), history));
    const auto expect_same = [&](const char* when) {
      for (int64_t i = 0; i < 3; ++i) {
        const Tensor own = alone[size_t(i)].log_probabilities();
        EXPECT_LT((all.log_probabilities(i) - own).abs().max().item<double>(), 1e-7)
            << when << ", text " << i << ", history " << history;
      }
    };
    all.feed_all(prompts);
    for (size_t i = 0; i < 3; ++i) alone[i].feed(prompts[i]);
    expect_same("prompt");
    std::vector<at::Generator> random, own_random;
    for (uint64_t i = 0; i < 3; ++i) {
      random.push_back(at::make_generator<at::CPUGeneratorImpl>(i));
      own_random.push_back(at::make_generator<at::CPUGeneratorImpl>(i));
    }
    for (int step = 0; step < 8; ++step) {
      const auto drawn = all.next_all({}, random);
      for (size_t i = 0; i < 3; ++i) EXPECT_EQ(alone[i].next({}, own_random[i]), drawn[i]);
      expect_same("token");
    }
    all.feed_all(more);
    for (size_t i = 0; i < 3; ++i) alone[i].feed(more[i]);
    expect_same("more");
    EXPECT_EQ(all.report().tokens, 24);
    EXPECT_EQ(all.report().prompt_tokens, 19);
  }
}

TEST_P(Batches, ACacheThatWasSavedGoesOnAsIfNothingHadHappened) {
  LanguageModel model = model_of(GetParam());
  const testing::Scratch folder;
  TextGenerator first(model, tight(), 100, 2), second(model, tight(), 100, 2);
  first.feed_all({{1, 2, 3}, {4, 5, 6, 7}});
  const std::string weights = weights_fingerprint(model);
  save_cache(folder / "cache", first.cache(), weights);
  second.restore(load_cache(folder / "cache", weights));
  EXPECT_TRUE(at::equal(first.log_probabilities(1), second.log_probabilities(1)));
  for (TextGenerator* generator : {&first, &second}) generator->feed_all({{8}, {9}});
  for (int64_t i : {0, 1})
    EXPECT_TRUE(at::equal(first.log_probabilities(i), second.log_probabilities(i)));
}

INSTANTIATE_TEST_SUITE_P(
    Networks, Batches,
    ::testing::Values(Network{Transformer{.width = 12, .heads = 3, .inner = 20}},
                      Network{Transformer{.width = 12, .heads = 3, .inner = 20, .window = 4}},
                      Network{Transformer{.width = 12, .heads = 3, .inner = 20}, {.depth = 3}},
                      Network{TrellisNet{.hidden = 9, .output = 6, .kernel = 3}},
                      Network{Lstm{{.width = 12}}, {.depth = 2, .tied = false}},
                      Network{Tcn{.width = 12, .kernel = 3}, {.depth = 2, .tied = false}}));

TEST(EquilibriumCache, WhatIsNoCacheOfThisModelIsRefused) {
  LanguageModel model = model_of({Transformer{.width = 12, .heads = 3, .inner = 20}});
  const testing::Scratch folder;
  const std::string weights = weights_fingerprint(model);
  TextGenerator generator(model, tight(), 100);
  EXPECT_SAYS(testing::error_of([&] { save_cache(folder / "cache", generator.cache(), weights); }),
              "nothing was fed");
  generator.feed({1, 2, 3});
  save_cache(folder / "cache", generator.cache(), weights);
  const auto refusal = [&](const char* name, const std::string& of) {
    return testing::error_of([&] { load_cache(folder / name, of); });
  };
  EXPECT_SAYS(refusal("none", weights), "none");
  {
    c10::NoGradGuard no_tape;
    model.parameters()[0].add_(1);
  }
  EXPECT_NE(weights_fingerprint(model), weights);
  EXPECT_SAYS(refusal("cache", weights_fingerprint(model)), "belongs to other weights");
  save_tensors(folder / "other", {{"a", at::zeros({2})}});
  EXPECT_SAYS(refusal("other", weights), "is no equilibrium cache");
  TensorFile file = load_tensors(folder / "cache");
  file.tensors["level0.hidden"] = at::tensor({0, 5}, at::kLong);
  save_tensors(folder / "hidden", file.tensors, file.metadata);
  EXPECT_SAYS(refusal("hidden", weights), "hidden positions of 2 texts; expected 1");
  file.tensors["level0.hidden"] = at::tensor({9}, at::kLong);
  save_tensors(folder / "hidden", file.tensors, file.metadata);
  EXPECT_SAYS(refusal("hidden", weights), "9 hidden positions; expected 0 to 3");
  file.tensors.erase("level0.hidden");
  file.tensors["level0.k"] = file.tensors["level0.k"].to(at::kFloat);
  save_tensors(folder / "hidden", file.tensors, file.metadata);
  EXPECT_SAYS(refusal("hidden", weights), "k is Float [1, 3, 12]; expected 3 dimensions");
  TextGenerator two(model, tight(), 100, 2);
  EXPECT_SAYS(testing::error_of([&] { two.restore(load_cache(folder / "cache", weights)); }),
              "a cache of 1 texts; expected 2");
}

TEST(TextGenerator, RefusesACellThatIsNotCausal) {
  ModelOptions options = small_model(NormPlace::Post, 0);
  std::get<Transformer>(options.cell).causal = false;
  LanguageModel model(options, 17);
  EXPECT_THROW(TextGenerator(model, {}, 10), Error);
}

TEST(TextGenerator, RepeatsItselfBySeedAndCountsItsWork) {
  at::manual_seed(1);
  LanguageModel model(small_model(NormPlace::Post, 0), 17);
  EquilibriumOptions equilibrium;
  equilibrium.solver = Anderson{.scope = Scope::Causal};
  const auto text = [&](uint64_t seed, int64_t history) {
    TextGenerator generator(model, equilibrium, history);
    at::Generator random = at::make_generator<at::CPUGeneratorImpl>(seed);
    generator.feed({1, 2, 3});
    std::vector<int64_t> tokens;
    for (int i = 0; i < 20; ++i) tokens.push_back(generator.next({}, random));
    EXPECT_EQ(generator.report().tokens, 20);
    EXPECT_GE(generator.report().evaluations, 20);
    EXPECT_LE(generator.cache().histories[0].length(), history);
    return tokens;
  };
  EXPECT_EQ(text(5, 50), text(5, 50));
  EXPECT_NE(text(5, 50), text(6, 50));
  text(5, 0);
}

TEST(Sampling, TopKAndTopPKeepTheLikeliest) {
  const Tensor p = at::tensor({0.05, 0.4, 0.15, 0.3, 0.1}, at::kDouble).log();
  const auto kept = [&](const SamplingOptions& options) {
    return restrict(p, options).exp().gt(0);
  };
  EXPECT_TRUE(at::equal(kept({.top_k = 2}), at::tensor({0, 1, 0, 1, 0}).to(at::kBool)));
  EXPECT_TRUE(at::equal(kept({.top_p = 0.69}), at::tensor({0, 1, 0, 1, 0}).to(at::kBool)));
  EXPECT_TRUE(at::equal(kept({.top_p = 0.71}), at::tensor({0, 1, 1, 1, 0}).to(at::kBool)));
  EXPECT_TRUE(at::equal(kept({.top_p = 0.01}), at::tensor({0, 1, 0, 0, 0}).to(at::kBool)));
  EXPECT_NEAR(restrict(p, {.top_k = 2}).exp().sum().item<double>(), 1, 1e-12);
  const Tensor sharp = restrict(p, {.temperature = 0.5}).exp();
  EXPECT_NEAR((sharp[1] / sharp[3]).item<double>(), 16.0 / 9, 1e-9);
  at::Generator random = at::make_generator<at::CPUGeneratorImpl>(1);
  EXPECT_EQ(sample(p, {.greedy = true}, random), 1);
  EXPECT_THROW(restrict(p, {.temperature = 0}), Error);
}

TEST(Sampling, DrawsByTheProbabilities) {
  const Tensor p = at::tensor({0.1, 0.6, 0.3}, at::kDouble);
  at::Generator random = at::make_generator<at::CPUGeneratorImpl>(9);
  std::vector<int> counts(3);
  constexpr int kDraws = 4000;
  for (int i = 0; i < kDraws; ++i) ++counts[size_t(sample(p.log(), {}, random))];
  for (int64_t i = 0; i < 3; ++i) {
    const double expected = p[i].item<double>();
    EXPECT_NEAR(counts[size_t(i)] / double(kDraws), expected,
                4 * std::sqrt(expected * (1 - expected) / kDraws));
  }
}

}  // namespace
}  // namespace deq
