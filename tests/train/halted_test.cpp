// Where problems are left at test time, and what is said of them there.
#include "deq/train/halted.h"

#include <ATen/ATen.h>
#include <ATen/record_function.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "tests/base/scratch.h"
#include "tests/train/halting_runs.h"
#include "tests/train/small_run.h"

namespace deq {
namespace {

using at::Tensor;
using testing::error_of;
using testing::halting_levels;
using testing::halting_options;
using testing::learned_rules;

/// A model after some steps, and problems to halt on.
struct Trained {
  std::shared_ptr<Model> model;
  Split split;
  TrainOptions options;

  explicit Trained(const TrainOptions& given) : options(given) {
    Corpus corpus = load(given.task, "");
    split = corpus.test;
    Trainer trainer(given, std::move(corpus));
    for (int step = 0; step < 10; ++step) trainer.step();
    model = trainer.model().clone();
    model->eval();
  }

  Halted halted(const Halting& rule, int64_t first = 0, int64_t count = 20) const {
    c10::NoGradGuard no_tape;
    ForwardOptions how;
    how.equilibrium = options.equilibrium;
    return run_halting(*model, split.tokens.narrow(0, first, count), rule, how, first);
  }
};

/// f of a model's problems, and the states z_0, z_1, ... of its plain steps.
std::vector<Tensor> plain_steps(const Trained& trained, int64_t count, double damping) {
  c10::NoGradGuard no_tape;
  const Map f = trained.model->bind(trained.split.tokens, {}).front().f;
  std::vector<Tensor> states{at::zeros({20, 4, 5})};
  for (int64_t n = 0; n < count; ++n)
    states.push_back((1 - damping) * states.back() + damping * f(states.back()));
  return states;
}

TEST(Halted, ProblemsAreLeftWhereTheyHaltAndFJudgesThem) {
  for (const double damping : {1.0, 0.5}) {
    TrainOptions options = halting_options(RightHead{.bias = 0});
    options.equilibrium.solver = Picard{.damping = damping};
    const Trained trained(options);
    const std::vector<Tensor> states = plain_steps(trained, 6, damping);
    const Map f = trained.model->bind(trained.split.tokens, {}).front().f;
    c10::NoGradGuard no_tape;
    std::vector<double> logits;
    for (size_t n = 1; n < states.size(); ++n) {
      const Tensor own = trained.model->halting_logits(states[n]);
      for (int64_t b = 0; b < 20; ++b) logits.push_back(own[b].item<double>());
    }
    std::sort(logits.begin(), logits.end());
    const double threshold = 1 / (1 + std::exp(-logits[logits.size() * 2 / 3]));
    const Halted found = trained.halted(RightHead{.threshold = threshold});
    std::set<int64_t> different;
    for (int64_t b = 0; b < 20; ++b) {
      int64_t n = 1;
      while (n < 6 &&
             !(trained.model->halting_logits(states[size_t(n)])[b].sigmoid().item<double>() >
               threshold))
        ++n;
      EXPECT_EQ(found.report.steps[b].item<int64_t>(), n);
      different.insert(n);
      const auto left = size_t(std::min<int64_t>(n, 5));  // the sixth evaluation judges
      const Tensor own = states[left][b], fz = f(states[left])[b];
      EXPECT_LT((found.z[b] - own).abs().max().item<double>(), 1e-5);
      EXPECT_NEAR(found.report.residual[b].item<double>(),
                  ((fz - own).norm() / fz.norm()).item<double>(), 1e-5);
    }
    EXPECT_GT(different.size(), 1u) << "or nothing is tested";
    EXPECT_EQ(*different.rbegin(), 6) << "or nothing runs out of steps";
    EXPECT_EQ(found.report.evaluations, 6) << "with the one that judges";
    EXPECT_LT(found.report.converged_share(), 1) << "the rule's word is no convergence";
  }
}

TEST(Halted, StepsThatRunOutAreThoseOfALayerThatDoesNotHalt) {
  for (const Halting& rule : learned_rules()) {
    const Trained trained(halting_levels(rule));
    c10::NoGradGuard no_tape;
    const Tensor last = trained.model->forward(trained.split.tokens, {}, {}).z;
    const Halted found = trained.halted(RightHead{.threshold = 1 - 1e-12});
    if (rule.is<RightHead>()) {
      EXPECT_EQ(found.halted.sum().item<int64_t>(), 0);
      EXPECT_TRUE(at::allclose(found.z, last, 1e-5, 1e-6));
      EXPECT_EQ(found.report.steps.min().item<int64_t>(), 4);
    }
    const Halted still = trained.halted(HaltByResidual{.threshold = 1e-9});
    EXPECT_TRUE(at::allclose(still.z, last, 1e-5, 1e-6));
  }
  TrainOptions embedded = halting_levels(RightHead{});
  embedded.model.depth.step_embedding = true;
  const Trained trained(embedded);
  c10::NoGradGuard no_tape;
  const Tensor last = trained.model->forward(trained.split.tokens, {}, {}).z;
  EXPECT_TRUE(at::allclose(trained.halted(RightHead{.threshold = 1 - 1e-12}).z, last, 1e-5, 1e-6));
}

TEST(Halted, ByTheResidualStepsAreThoseOfASolveAtThatTolerance) {
  TrainOptions options = halting_options();
  options.equilibrium.stop.max_steps = 60;
  const Trained trained(options);
  const Halted found = trained.halted(HaltByResidual{.threshold = 0.05});
  c10::NoGradGuard no_tape;
  ForwardOptions how;
  how.equilibrium = for_evaluation(options.equilibrium);
  how.equilibrium.stop.rel_tol = 0.05;
  const LayerOutput solved = trained.model->forward(trained.split.tokens, {}, how);
  for (int64_t b = 0; b < 20; ++b)
    EXPECT_EQ(found.report.steps[b].item<int64_t>(), solved.report.steps[b].item<int64_t>());
  EXPECT_TRUE(at::allclose(found.z, solved.z, 1e-4, 1e-5));
}

TEST(Halted, WhatDoesNotHaltIsWhereTheLimitLeavesIt) {
  for (const int64_t limit : {1, 2, 9, 14}) {
    TrainOptions options = halting_options();
    options.equilibrium.stop = {.max_steps = limit, .rel_tol = 1e-12};
    const Trained trained(options);
    c10::NoGradGuard no_tape;
    ForwardOptions how;
    how.equilibrium = for_evaluation(options.equilibrium);
    const LayerOutput solved = trained.model->forward(trained.split.tokens, {}, how);
    for (const Halting& rule :
         {Halting(HaltByResidual{.threshold = 1e-9}), Halting(HaltByChange{.threshold = 1e-12})}) {
      const Halted found = trained.halted(rule);
      EXPECT_EQ(found.halted.sum().item<int64_t>(), 0);
      EXPECT_TRUE(at::allclose(found.z, solved.z, 1e-6, 1e-7)) << rule.name() << " " << limit;
      EXPECT_EQ(found.report.steps.min().item<int64_t>(), limit);
    }
  }
}

/// Where levels see an embedding of their own, the one that judged is the one that is reported.
TEST(Halted, ByTheResidualEachStateIsReportedAsItWasJudged) {
  TrainOptions options = halting_levels();
  options.model.depth = {.depth = 12, .step_embedding = true};
  options.model.initial.init_std = 0.5;
  const Trained trained(options);
  int64_t halted = 0;
  for (const double threshold : {0.3, 0.5, 0.7, 0.9}) {
    const Halted found = trained.halted(HaltByResidual{.threshold = threshold});
    for (int64_t b = 0; b < 20; ++b) {
      if (!found.halted[b].item<bool>()) continue;
      ++halted;
      EXPECT_LE(found.report.residual[b].item<double>(), threshold + 1e-5);
    }
  }
  EXPECT_GT(halted, 20) << "or nothing is tested";
}

std::vector<Halting> at_thresholds(const Halting& rule) {
  std::vector<Halting> found;
  for (const double threshold : {0.02, 0.2, 0.5, 0.9}) {
    if (rule.is<AdaptiveHalting>()) found.push_back(AdaptiveHalting{.threshold = threshold});
    if (rule.is<PonderHalting>()) found.push_back(PonderHalting{.threshold = threshold});
    if (rule.is<RightHead>()) found.push_back(RightHead{.threshold = threshold});
  }
  return found;
}

TEST(Halted, AHigherThresholdTakesMoreSteps) {
  for (const Halting& rule :
       {Halting(AdaptiveHalting{}), Halting(PonderHalting{}), Halting(RightHead{.bias = 0})}) {
    TrainOptions options = halting_options(rule);
    options.equilibrium.stop.max_steps = 40;
    const Trained trained(options);
    std::vector<double> means;
    for (const Halting& one : at_thresholds(rule))
      means.push_back(trained.halted(one).report.steps.to(at::kDouble).mean().item<double>());
    EXPECT_TRUE(std::is_sorted(means.begin(), means.end())) << rule.name();
    EXPECT_GT(means.back(), means.front()) << rule.name();
  }
}

TEST(Halted, NoProblemDependsOnItsBatch) {
  for (const Halting& rule : learned_rules()) {
    TrainOptions options = halting_options(rule);
    options.equilibrium.stop.max_steps = 40;
    const Trained trained(options);
    std::vector<Halting> rules = at_thresholds(rule);
    if (rule.is<PonderHalting>()) rules.push_back(PonderHalting{.draw = 5});
    for (const Halting& one : rules) {
      const Halted all = trained.halted(one);
      for (int64_t b = 0; b < 20; ++b) {
        const Halted own = trained.halted(one, b, 1);
        EXPECT_EQ(own.report.steps[0].item<int64_t>(), all.report.steps[b].item<int64_t>());
        EXPECT_TRUE(at::allclose(own.z[0], all.z[b], 1e-4, 1e-5));
      }
    }
    trained.model->halt_by(rules[2]);
    Evaluation found[3];
    for (const int64_t batch : {1, 20})
      found[batch / 20] =
          evaluate(*trained.model, trained.split, options.equilibrium, {.batch = batch});
    found[2] = evaluate(*trained.model, trained.split, options.equilibrium, {.batch = 10}, {},
                        Shards(2, alone()));
    for (const size_t other : {1, 2}) {
      EXPECT_EQ(found[0].exact_share, found[other].exact_share);
      EXPECT_EQ(found[0].halting_steps, found[other].halting_steps);
      EXPECT_EQ(found[0].halted_share, found[other].halted_share);
    }
  }
}

/// Samples that went through a convolution while this lived.
class Convolved {
 public:
  Convolved()
      : handle_(at::addThreadLocalCallback(at::RecordFunctionCallback(&see).needsInputs(true))) {
    samples = 0;
  }
  ~Convolved() { at::removeCallback(handle_); }

  static int64_t samples;

 private:
  static std::unique_ptr<at::ObserverContext> see(const at::RecordFunction& called) {
    if (std::string(called.name()) == "aten::convolution")
      samples += called.inputs()[0].toTensor().size(0);
    return nullptr;
  }
  at::CallbackHandle handle_;
};
int64_t Convolved::samples = 0;

TEST(Halted, ProblemsThatHaveHaltedLeaveTheBatch) {
  TrainOptions options = halting_options(PonderHalting{});
  options.equilibrium.stop.max_steps = 40;
  const Trained trained(options);
  const auto count = [&](const Halting& rule) {
    const Convolved convolved;
    const Halted found = trained.halted(rule);
    EXPECT_GT(Convolved::samples, 0);
    return std::pair{double(Convolved::samples), found};
  };
  // Steps that are drawn differ much from problem to problem.
  const auto [some, drawn] = count(PonderHalting{.draw = 7});
  const double longest = drawn.report.steps.max().item<double>();
  const double mean = drawn.report.steps.to(at::kDouble).mean().item<double>();
  ASSERT_LT(mean, 0.6 * longest);
  const auto [each, alike] = count(PonderHalting{.threshold = 1e-9});
  ASSERT_EQ(alike.report.steps.max().item<int64_t>(), 1);
  const auto [twice, open] = count(PonderHalting{.threshold = 1 - 1e-15});
  const double a_step = (twice - each) / (open.report.steps.max().item<double>() - 1);
  EXPECT_LT(some - each, 0.8 * a_step * (longest - 1));
}

TEST(Halted, AnEvaluationSaysWhenProblemsHalted) {
  const Trained trained(halting_options(RightHead{}));
  const Halting rule = RightHead{.threshold = 1e-3};
  trained.model->halt_by(rule);
  const Halted all = trained.halted(rule);
  const Evaluation found =
      evaluate(*trained.model, trained.split, trained.options.equilibrium, {.batch = 7});
  EXPECT_EQ(found.halting, "head");
  EXPECT_NEAR(found.halting_steps, all.report.steps.to(at::kDouble).mean().item<double>(), 1e-9);
  EXPECT_NEAR(found.halted_share, all.halted.to(at::kDouble).mean().item<double>(), 1e-9);
  EXPECT_NEAR(found.mean_residual, all.report.mean_residual(), 1e-6);
  trained.model->halt_by(Halting());
  const Evaluation solved =
      evaluate(*trained.model, trained.split, trained.options.equilibrium, {.batch = 7});
  EXPECT_EQ(solved.halting, "");
  EXPECT_NE(solved.mean_residual, found.mean_residual);
}

TEST(Halted, ACloneHaltsAlike) {
  const Trained trained(halting_options(PonderHalting{}));
  trained.model->halt_by(PonderHalting{.threshold = 0.123});
  const auto copy = trained.model->clone();
  EXPECT_EQ(copy->halting().get_if<PonderHalting>()->threshold, 0.123);
  for (const auto& [name, tensor] : named_tensors(*trained.model))
    EXPECT_TRUE(at::equal(tensor, named_tensors(*copy).at(name))) << name;
  trained.model->halt_by(HaltByResidual{});
  EXPECT_TRUE(trained.model->clone()->halting().is<HaltByResidual>());
}

TEST(Halted, ATextIsAnError) {
  testing::Scratch scratch;
  testing::spill(scratch / "text.txt", testing::small_text());
  const TrainOptions options = testing::small_options();
  Trainer trainer(options, load(options.task, (scratch / "text.txt").string()));
  trainer.model().halt_by(HaltByResidual{});
  EXPECT_SAYS(error_of([&] { trainer.evaluate_valid(); }),
              "halting = residual: a text's positions go on from each other");
}

TEST(Halted, ARuleWithoutWeightsIsAnError) {
  const Trained trained(halting_options(AdaptiveHalting{}));
  EXPECT_SAYS(error_of([&] { trained.model->halt_by(RightHead{}); }),
              "halting = head: the model was trained with act");
  const Trained untied([] {
    TrainOptions o = halting_levels();
    o.model.depth.tied = false;
    return o;
  }());
  EXPECT_SAYS(error_of([&] { untied.model->halt_by(HaltByResidual{}); }), "with tied = false");
}

}  // namespace
}  // namespace deq
