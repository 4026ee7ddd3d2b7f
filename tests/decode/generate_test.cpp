// Texts that go on each as soon as it can, against each of them alone.
#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>

#include "deq/cells/transformer.h"
#include "deq/cells/trellisnet.h"
#include "deq/decode/generator.h"
#include "deq/solvers/anderson.h"
#include "deq/solvers/broyden.h"
#include "deq/solvers/picard.h"
#include "tests/base/scratch.h"

namespace deq {
namespace {

using at::Tensor;

struct Network {
  CellOptions cell;
  DepthOptions depth = {};
  double init_std = 0.5;
};

LanguageModel model_of(const Network& network, at::ScalarType type = at::kFloat) {
  at::manual_seed(6);
  ModelOptions options;
  options.cell = network.cell;
  options.depth = network.depth;
  options.initial = {.init_std = network.init_std, .embedding_init_std = 0.3};
  LanguageModel model(options, 17);
  model.to(type);
  return model;
}

std::vector<at::Generator> generators(size_t count, uint64_t seed = 1) {
  std::vector<at::Generator> all;
  for (size_t i = 0; i < count; ++i)
    all.push_back(at::make_generator<at::CPUGeneratorImpl>(seed + i));
  return all;
}

std::vector<std::vector<int64_t>> some_prompts(size_t count) {
  std::vector<std::vector<int64_t>> prompts(count);
  for (size_t i = 0; i < count; ++i) {
    for (size_t t = 0; t < 1 + i * 5 % 13; ++t)
      prompts[i].push_back(int64_t((7 * i + 3 * t + 2) % 17));
  }
  return prompts;
}

using Tokens = std::vector<std::vector<int64_t>>;

/// Generates, and returns what each text was given.
Tokens generated(TextGenerator& generator, const std::vector<int64_t>& counts,
                 std::vector<at::Generator> random, const SamplingOptions& sampling = {}) {
  Tokens tokens(counts.size());
  generator.generate(counts, sampling, random, [&](int64_t text, int64_t token) {
    tokens[size_t(text)].push_back(token);
    return true;
  });
  return tokens;
}

void expect_equal(const Tensor& a, const Tensor& b) {
  ASSERT_EQ(a.defined(), b.defined());
  if (a.defined()) {
    EXPECT_TRUE(at::equal(a, b));
  }
}

void expect_same(const EquilibriumCache& one, const EquilibriumCache& other) {
  EXPECT_TRUE(at::equal(one.log_probabilities, other.log_probabilities));
  ASSERT_EQ(one.histories.size(), other.histories.size());
  for (size_t level = 0; level < one.histories.size(); ++level) {
    const History &a = one.histories[level], &b = other.histories[level];
    expect_equal(a.z, b.z);
    expect_equal(a.x, b.x);
    expect_equal(a.k, b.k);
    expect_equal(a.v, b.v);
    EXPECT_EQ(a.weights, b.weights);
  }
}

EquilibriumOptions solved_by(const Solver& solver, double rel_tol = 1e-4, int64_t max_steps = 60) {
  EquilibriumOptions options;
  options.solver = solver;
  options.stop = {.max_steps = max_steps, .rel_tol = rel_tol};
  return options;
}

void expect_as_alone(LanguageModel& model, const EquilibriumOptions& how, int64_t history) {
  constexpr size_t kMost = 16;
  const Tokens prompts = some_prompts(kMost);
  std::vector<TextGenerator> alone;
  Tokens tokens;
  for (size_t i = 0; i < kMost; ++i) {
    alone.emplace_back(model, how, history);
    alone.back().feed(prompts[i]);
    tokens.push_back(generated(alone.back(), {30 + int64_t(i)}, generators(1, 1 + i)).front());
    EXPECT_EQ(tokens.back().size(), 30 + i);
  }
  for (const size_t texts : {2, 16}) {
    TextGenerator all(model, how, history, int64_t(texts));
    all.feed_all({prompts.begin(), prompts.begin() + int64_t(texts)});
    std::vector<int64_t> counts;
    for (size_t i = 0; i < texts; ++i) counts.push_back(30 + int64_t(i));
    const Tokens found = generated(all, counts, generators(texts));
    int64_t evaluations = 0, converged = 0;
    double worst = 0;
    const std::vector<EquilibriumCache> caches = split(all.cache());
    for (size_t i = 0; i < texts; ++i) {
      EXPECT_EQ(found[i], tokens[i]) << "text " << i << " of " << texts;
      expect_same(caches[i], alone[i].cache());
      evaluations += alone[i].report().evaluations;
      converged += alone[i].report().converged;
      worst = std::max(worst, alone[i].report().worst_residual);
    }
    EXPECT_EQ(all.report().evaluations, evaluations);
    EXPECT_EQ(all.report().converged, converged);
    if (texts == kMost) {
      EXPECT_EQ(all.report().worst_residual, worst);
    }
  }
}

class Generate : public ::testing::TestWithParam<Network> {};

TEST_P(Generate, ATextIsTheSameWhateverStandsBesideIt) {
  for (const at::ScalarType type : {at::kFloat, at::kDouble}) {
    LanguageModel model = model_of(GetParam(), type);
    for (const int64_t history : {200, 12, 0}) {
      SCOPED_TRACE(fmt::format("history {}, {}", history, c10::toString(type)));
      expect_as_alone(model, solved_by(Anderson{.scope = Scope::Causal}), history);
    }
  }
}

TEST_P(Generate, ATextIsTheSameByEverySolver) {
  LanguageModel model = model_of(GetParam());
  for (const Solver& solver : {Solver(Anderson{.memory = 3}), Solver(Broyden{.memory = 5}),
                               Solver(Picard{.damping = 0.8})}) {
    SCOPED_TRACE(solver.name());
    // So few steps that some do not converge.
    expect_as_alone(model, solved_by(solver, 1e-3, 9), 20);
  }
}

// Tokens, equilibria, log-probabilities and report of one token after the other.
TEST_P(Generate, IsOneTokenAfterTheOther) {
  LanguageModel model = model_of(GetParam(), at::kDouble);
  const EquilibriumOptions how = solved_by(Anderson{.scope = Scope::Causal});
  TextGenerator at_once(model, how, 25), step_by_step(model, how, 25);
  std::vector<at::Generator> random = generators(1);
  std::vector<int64_t> tokens;
  for (TextGenerator* generator : {&at_once, &step_by_step}) generator->feed({1, 2, 3});
  for (int k = 0; k < 40; ++k) tokens.push_back(step_by_step.next({}, random.front()));
  EXPECT_EQ(generated(at_once, {40}, generators(1)).front(), tokens);
  expect_same(at_once.cache(), step_by_step.cache());
  EXPECT_EQ(at_once.report().evaluations, step_by_step.report().evaluations);
  EXPECT_EQ(at_once.report().tokens, 40);
  EXPECT_EQ(at_once.report().worst_residual, step_by_step.report().worst_residual);
  // And on from there, by all ways.
  for (TextGenerator* generator : {&at_once, &step_by_step}) {
    generator->feed({4, 5});
    std::vector<at::Generator> more = generators(1, 7);
    generator->next({}, more.front());
  }
  expect_same(at_once.cache(), step_by_step.cache());
}

INSTANTIATE_TEST_SUITE_P(
    Networks, Generate,
    ::testing::Values(
        Network{Transformer{.width = 12, .heads = 3, .inner = 20}},
        Network{Transformer{.width = 12, .heads = 3, .inner = 20, .window = 5}},
        Network{Transformer{
            .width = 12, .heads = 3, .inner = 20, .norm = NormPlace::PrePublished, .window = 4}},
        Network{TrellisNet{.hidden = 9, .output = 6, .kernel = 3}},
        Network{Transformer{.width = 12, .heads = 3, .inner = 20}, {.depth = 3}}));

// A history that is not of keys and values, as one that was computed with a tape.
TEST(Generate, GoesOnFromStatesAndInputs) {
  LanguageModel model = model_of({Transformer{.width = 12, .heads = 3, .inner = 20}});
  const EquilibriumOptions how = solved_by(Anderson{.scope = Scope::Causal}, 1e-6);
  TextGenerator kept(model, how, 20), taped(model, how, 20);
  kept.feed({1, 2, 3, 4});
  ForwardOptions forward;
  forward.equilibrium = for_evaluation(how);
  forward.history = 20;
  const LayerOutput output =
      model.forward(at::tensor({1, 2, 3, 4}, at::kLong).unsqueeze(0), {}, forward);
  ASSERT_TRUE(output.histories[0].z.defined());
  taped.restore({output.histories, kept.cache().log_probabilities});
  EXPECT_EQ(generated(taped, {15}, generators(1)), generated(kept, {15}, generators(1)));
  EXPECT_TRUE(at::allclose(taped.log_probabilities(), kept.log_probabilities(), 1e-3, 1e-4));
}

TEST(Generate, WhatDoesNotConvergeDelaysNoOtherText) {
  LanguageModel model =
      model_of({.cell = Transformer{.width = 12, .heads = 3, .inner = 20}, .init_std = 0.9});
  const EquilibriumOptions how = solved_by(Picard{}, 1e-4, 100);
  const Tokens prompts = some_prompts(6);
  TextGenerator all(model, how, 30, 6);
  all.feed_all(prompts);
  generated(all, std::vector<int64_t>(6, 20), generators(6));
  EXPECT_GT(all.report().converged, 20);
  EXPECT_LT(all.report().converged, 120 - 5);
  int64_t alone = 0;
  for (size_t i = 0; i < 6; ++i) {
    TextGenerator one(model, how, 30);
    one.feed(prompts[i]);
    generated(one, {20}, generators(1, 1 + i));
    alone += one.report().evaluations;
  }
  EXPECT_EQ(all.report().evaluations, alone);
}

TEST(Generate, SomeTextsStopSoonerAndAllGoOnAfterwards) {
  for (const DepthOptions& depth : {DepthOptions{}, DepthOptions{.depth = 3}}) {
    const Network network{Transformer{.width = 12, .heads = 3, .inner = 20}, depth, 0.3};
    LanguageModel model = model_of(network, at::kDouble);
    const EquilibriumOptions how = solved_by(Anderson{.scope = Scope::Causal}, 1e-8, 400);
    const Tokens prompts = some_prompts(3);
    TextGenerator all(model, how, 40, 3);
    all.feed_all(prompts);
    const Tokens first = generated(all, {0, 9, 4}, generators(3));
    EXPECT_TRUE(first[0].empty());
    const Tokens second = generated(all, {5, 0, 7}, generators(3, 20));
    EXPECT_EQ(generated(all, {0, 0, 0}, generators(3)), Tokens(3));
    EXPECT_EQ(all.report().tokens, 25);
    for (size_t i = 0; i < 3; ++i) {
      TextGenerator one(model, how, 40);
      one.feed(prompts[i]);
      for (const auto& tokens : {first[i], second[i]}) one.feed(tokens);
      EXPECT_LT(
          (all.log_probabilities(int64_t(i)) - one.log_probabilities()).abs().max().item<double>(),
          1e-6);
    }
  }
}

TEST(Generate, StopsWhenItIsToldToWithWhatWasDrawnFed) {
  LanguageModel model = model_of({Transformer{.width = 12, .heads = 3, .inner = 20}});
  const EquilibriumOptions how = solved_by(Anderson{.scope = Scope::Causal});
  const Tokens prompts = some_prompts(3);
  TextGenerator all(model, how, 40, 3);
  all.feed_all(prompts);
  std::vector<at::Generator> random = generators(3);
  Tokens tokens(3);
  int64_t drawn = 0;
  all.generate({50, 50, 50}, {}, random, [&](int64_t text, int64_t token) {
    tokens[size_t(text)].push_back(token);
    return ++drawn < 20;
  });
  EXPECT_EQ(drawn, 20);
  EXPECT_EQ(all.report().tokens, 20);
  for (size_t i = 0; i < 3; ++i) {
    TextGenerator one(model, how, 40);
    one.feed(prompts[i]);
    EXPECT_EQ(generated(one, {int64_t(tokens[i].size())}, generators(1, 1 + i)).front(), tokens[i]);
    EXPECT_TRUE(at::equal(all.log_probabilities(int64_t(i)), one.log_probabilities()));
  }
}

TEST(Generate, WeightsThatChangeWithinATextAreAnError) {
  for (const bool by_data : {false, true}) {
    for (const Network& network : {Network{Transformer{.width = 12, .heads = 3, .inner = 20}},
                                   Network{TrellisNet{.hidden = 9, .output = 6}}}) {
      LanguageModel model = model_of(network);
      TextGenerator generator(model, solved_by(Anderson{}), 40, 2);
      generator.feed_all({{1, 2, 3}, {4, 5}});
      std::vector<at::Generator> random = generators(2);
      int64_t drawn = 0;
      const std::string error = testing::error_of([&] {
        generator.generate({200, 200}, {}, random, [&](int64_t, int64_t) {
          if (++drawn == 8) {
            c10::NoGradGuard no_tape;
            for (Tensor& parameter : model.cell().parameters())
              (by_data ? parameter.data() : parameter).mul_(1.01);
          }
          return true;
        });
      });
      EXPECT_SAYS(error, by_data ? "other weights" : "");
      EXPECT_FALSE(error.empty());
      EXPECT_LE(drawn, 8 + 2 * 17 + 2);
    }
  }
}

TEST(Generate, RefusesNumbersThatDoNotFit) {
  LanguageModel model = model_of({Transformer{.width = 12, .heads = 3, .inner = 20}});
  TextGenerator generator(model, {}, 40, 2);
  EXPECT_SAYS(testing::error_of([&] {
                generated(generator, {1, 1}, generators(2));
              }),
              "nothing was fed");
  generator.feed_all({{1}, {2}});
  EXPECT_SAYS(testing::error_of([&] { generated(generator, {1}, generators(2)); }),
              "[1] tokens for 2 texts");
  EXPECT_SAYS(testing::error_of([&] {
                generated(generator, {1, -1}, generators(2));
              }),
              "[1, -1] tokens");
  EXPECT_SAYS(testing::error_of([&] {
                generated(generator, {1, 1}, generators(1));
              }),
              "1 generators for 2 texts");
}

}  // namespace
}  // namespace deq
