// Models that are trained to halt: what their weights are, and what each option changes.
#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include "deq/gradients/implicit.h"
#include "deq/solvers/anderson.h"
#include "deq/tasks/bytes.h"
#include "tests/base/scratch.h"
#include "tests/train/halting_runs.h"
#include "tests/train/small_run.h"
#include "tests/train/states.h"

namespace deq {
namespace {

using at::Tensor;
using testing::after;
using testing::error_of;
using testing::halting_levels;
using testing::halting_options;
using testing::learned_rules;
using testing::same;
using testing::trainer_of;

TEST(Halting, ARunWithoutALearnedRuleHasTheSameCheckpointToTheBit) {
  for (const auto& of : {halting_options, halting_levels}) {
    const NamedTensors plain = after(of(Halting()), 5);
    EXPECT_TRUE(same(plain, after(of(HaltByResidual{}), 5)));
    EXPECT_TRUE(same(plain, after(of(HaltByChange{}), 5)));
    for (const auto& [name, tensor] : plain) EXPECT_EQ(name.find("halting"), std::string::npos);
  }
}

TEST(Halting, TheUnitStandsInTheCheckpointAndIsReadStrictly) {
  for (const Halting& rule : learned_rules()) {
    const NamedTensors plain = after(halting_options(), 0), with = after(halting_options(rule), 0);
    for (const auto& [name, tensor] : plain) {
      if (name == "random") continue;
      EXPECT_TRUE(at::equal(with.at(name), tensor)) << name;
    }
    ASSERT_TRUE(with.count("model.halting.weight") && with.count("model.halting.bias"));
    EXPECT_EQ(with.at("model.halting.bias").item<float>(), float(rule->bias()));
    EXPECT_GT(with.at("model.halting.weight").abs().min().item<float>(), 0);
    Trainer trainer = trainer_of(halting_options(rule));
    EXPECT_SAYS(error_of([&] { trainer.restore(plain); }), "weight 'halting.bias' is missing");
    Trainer other = trainer_of(halting_options());
    EXPECT_SAYS(error_of([&] { other.restore(with); }), "'halting.bias' does not belong");
  }
}

struct Case {
  const char* name;
  TrainOptions base, other;
};

std::vector<Case> cases() {
  AdaptiveHalting act{.threshold = 0.6, .cost = 0.5, .bias = -1};
  PonderHalting ponder{.weight = 0.5};
  RightHead head{.bias = 0};
  const auto changed = [](auto rule, auto member, auto value) {
    rule.*member = value;
    return rule;
  };
  std::vector<Case> all;
  for (const auto& of : {halting_options, halting_levels}) {
    all.push_back({"act", of({}), of(act)});
    all.push_back({"act threshold", of(act), of(changed(act, &AdaptiveHalting::threshold, 0.4))});
    all.push_back({"act cost", of(act), of(changed(act, &AdaptiveHalting::cost, 1.0))});
    all.push_back({"act bias", of(act), of(changed(act, &AdaptiveHalting::bias, -2.0))});
    all.push_back(
        {"act pool", of(act), of(changed(act, &AdaptiveHalting::pool, HaltingPool::Mean))});
    all.push_back({"ponder", of({}), of(ponder)});
    all.push_back({"ponder prior", of(ponder), of(changed(ponder, &PonderHalting::prior, 0.3))});
    all.push_back({"ponder weight", of(ponder), of(changed(ponder, &PonderHalting::weight, 1.0))});
    all.push_back({"ponder bias", of(ponder), of(changed(ponder, &PonderHalting::bias, 0.0))});
    all.push_back(
        {"ponder pool", of(ponder), of(changed(ponder, &PonderHalting::pool, HaltingPool::Mean))});
    all.push_back({"head", of({}), of(head)});
    all.push_back({"head weight", of(head), of(changed(head, &RightHead::weight, 1.0))});
    all.push_back({"head bias", of(head), of(changed(head, &RightHead::bias, 1.0))});
    all.push_back({"head pool", of(head), of(changed(head, &RightHead::pool, HaltingPool::Mean))});
  }
  TrainOptions carried = halting_options(head);
  carried.loop.path.carry = 4;
  all.push_back({"head carried", halting_options(head), carried});
  TrainOptions implicit = halting_options(head), at_the_end = halting_options();
  implicit.equilibrium.gradient = at_the_end.equilibrium.gradient = Implicit{};
  all.push_back({"head at the equilibrium", at_the_end, implicit});
  return all;
}

TEST(Halting, EveryOptionChangesTheWeightsAndResumesToTheSameBits) {
  for (const Case& one : cases()) {
    const NamedTensors plain = after(one.base, 8), whole = after(one.other, 8);
    EXPECT_FALSE(at::equal(plain.at("model.embedding.table0"), whole.at("model.embedding.table0")))
        << one.name;
    Trainer resumed = trainer_of(one.other);
    resumed.restore(after(one.other, 5));
    for (int64_t step = 5; step < 8; ++step) resumed.step();
    EXPECT_TRUE(same(resumed.state(), whole)) << one.name;
  }
}

/// Of a whole model in double, along a direction in all of its weights.
TEST(Halting, GradientsOfAModelAreThoseOfFiniteDifferences) {
  for (const Halting& rule : learned_rules()) {
    for (const auto& of : {halting_options, halting_levels}) {
      const TrainOptions options = of(rule);
      const Corpus corpus = load(options.task, "");
      const auto model = seeded_model(options, {2, 2});
      model->to(at::kDouble);
      const Batch batch = TrainingReader(corpus, {.batch = 8}).next();
      const auto loss = [&] {
        const Pass pass = pass_batch(*model, batch, {}, training_forward(options, true), {}, 1.0);
        return pass.loss + pass.halting.value();
      };
      loss();
      at::manual_seed(3);
      NamedTensors directions;
      double expected = 0;
      for (const auto& [name, weight] : parameters_of(*model)) {
        directions[name] = at::randn_like(weight);
        expected += (weight.grad() * directions[name]).sum().item<double>();
      }
      const auto move = [&](double step) {
        c10::AutoGradMode no_tape(false);
        for (auto& [name, weight] : parameters_of(*model)) {
          Tensor held = weight;
          held.add_(directions[name], step);
        }
      };
      constexpr double kStep = 1e-6;
      move(kStep);
      const double above = loss();
      move(-2 * kStep);
      const double found = (above - loss()) / (2 * kStep);
      EXPECT_NEAR(found, expected, 1e-6 * (1 + std::abs(expected))) << rule.name();
    }
  }
}

TEST(Halting, AStepReportsWhatTheRuleAddsAndWhenItHalts) {
  for (const auto& of : {halting_options, halting_levels}) {
    const StepReport act = trainer_of(of(AdaptiveHalting{.cost = 0.5, .bias = 20})).step();
    EXPECT_NEAR(act.halting_steps, 1, 1e-9);
    EXPECT_NEAR(act.halting, 0.5 * (1 + 1), 1e-6) << "one step, of which all is the remainder";
    const StepReport slow = trainer_of(of(AdaptiveHalting{.cost = 0.5, .bias = -20})).step();
    EXPECT_NEAR(slow.halting_steps, 4, 1e-9);
    EXPECT_NEAR(slow.halting, 0.5 * (4 + 1), 1e-5);
    EXPECT_EQ(trainer_of(of({})).step().halting_steps, 0);
  }
}

TEST(Halting, ShardsAddUpToTheWholeBatch) {
  for (const Halting& rule : learned_rules()) {
    TrainOptions options = halting_options(rule);
    const NamedTensors one = after(options, 3);
    const StepReport report = trainer_of(options).step();
    options.loop.batch.shards = 2;
    const NamedTensors two = after(options, 3);
    for (const auto& [name, tensor] : one) {
      if (name.rfind("model.", 0) != 0) continue;
      EXPECT_TRUE(at::allclose(tensor, two.at(name), 1e-4, 1e-6)) << rule.name() << " " << name;
    }
    const StepReport parts = trainer_of(options).step();
    EXPECT_NEAR(parts.halting, report.halting, 1e-5);
    EXPECT_NEAR(parts.halting_steps, report.halting_steps, 1e-5);
  }
}

TEST(Halting, WhatCannotHaltIsAnError) {
  const auto says = [](TrainOptions options, const std::function<void(TrainOptions&)>& change) {
    change(options);
    return error_of([&] { trainer_of(options); });
  };
  for (const Halting& rule : {Halting(AdaptiveHalting{}), Halting(HaltByResidual{})}) {
    EXPECT_SAYS(says(halting_levels(rule), [](TrainOptions& o) { o.model.depth.tied = false; }),
                fmt::format("halting = {} with tied = false", rule.name()));
    EXPECT_SAYS(
        says(halting_options(rule),
             [](TrainOptions& o) { o.equilibrium.solver = Anderson{.scope = Scope::Sample}; }),
        fmt::format("halting = {} with solver anderson", rule.name()));
  }
  for (const Halting& rule : {Halting(AdaptiveHalting{}), Halting(PonderHalting{})}) {
    const std::string name = rule.name();
    EXPECT_SAYS(
        says(halting_options(rule), [](TrainOptions& o) { o.equilibrium.gradient = Implicit{}; }),
        name + " with gradient implicit");
    EXPECT_SAYS(says(halting_options(rule), [](TrainOptions& o) { o.loop.path.carry = 3; }),
                name + " with carry, segments or progressive");
    EXPECT_SAYS(says(halting_options(rule), [](TrainOptions& o) { o.loop.path.segments = 3; }),
                name + " with carry, segments or progressive");
    EXPECT_SAYS(says(halting_options(rule),
                     [](TrainOptions& o) { o.equilibrium.solver = Picard{.damping = 0.5}; }),
                "solver-damping = 0.5, gradient-damping = 1");
  }
  EXPECT_SAYS(
      says(halting_levels(RightHead{}), [](TrainOptions& o) { o.model.depth.checkpointed = true; }),
      "halting = head with checkpointed = true");
  testing::Scratch scratch;
  testing::spill(scratch / "text.txt", testing::small_text());
  TrainOptions text = testing::small_options();
  text.model.halting = RightHead{};
  EXPECT_SAYS(error_of([&] { Trainer(text, load(text.task, (scratch / "text.txt").string())); }),
              "halting = head with task bytes");
  TrainOptions options;
  const auto refuses = [&](const Assignments& given) {
    return error_of([&] { assign_options(options, given); });
  };
  EXPECT_SAYS(refuses({{"halting", "act"}, {"halting_cost", "-1"}}), "halting-cost = -1");
  EXPECT_SAYS(refuses({{"halting", "act"}, {"halting_threshold", "1"}}), "halting-threshold = 1");
  EXPECT_SAYS(refuses({{"halting", "ponder"}, {"halting_prior", "0"}}), "halting-prior = 0");
  EXPECT_SAYS(refuses({{"halting", "ponder"}, {"halting_weight", "-1"}}), "halting-weight = -1");
  EXPECT_SAYS(refuses({{"halting", "head"}, {"halting_threshold", "0"}}), "halting-threshold = 0");
  EXPECT_SAYS(refuses({{"halting", "banana"}}), "banana");
}

}  // namespace
}  // namespace deq
