// Texts side by side in one cache, and a cache on disk.
#include "deq/decode/cache.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>

#include "deq/cells/recurrent.h"
#include "deq/cells/tcn.h"
#include "deq/cells/transformer.h"
#include "deq/cells/trellisnet.h"
#include "deq/decode/generator.h"
#include "deq/files/safetensors.h"
#include "deq/solvers/anderson.h"
#include "tests/base/scratch.h"

namespace deq {
namespace {

using at::Tensor;

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
  options.initial = {.init_std = 0.6, .embedding_init_std = 0.3};
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
    all.feed_all({{}, {2, 3}, {}});
    alone[1].feed({2, 3});
    expect_same("some");
    EXPECT_EQ(all.report().tokens, 24);
    EXPECT_EQ(all.report().prompt_tokens, 21);
    // What was compared says nothing unless it converged: what does not depends on rounding.
    if (model.is_explicit()) continue;
    EXPECT_EQ(all.report().converged, 24);
    for (const TextGenerator& one : alone) EXPECT_EQ(one.report().converged, 8);
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

}  // namespace
}  // namespace deq
