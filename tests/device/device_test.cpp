// On a GPU the same as on the CPU: solves, models, training, decoding. Skipped where there is none.
#include "deq/base/device.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>
#include <torch/cuda.h>

#include "deq/cells/recurrent.h"
#include "deq/cells/transformer.h"
#include "deq/cells/trellisnet.h"
#include "deq/decode/generator.h"
#include "deq/gradients/implicit.h"
#include "deq/solvers/anderson.h"
#include "deq/tasks/copy_memory.h"
#include "deq/train/trainer.h"
#include "tests/problems.h"
#include "tests/suites/solver_cases.h"

namespace deq {
namespace {

using namespace testing;
using at::Tensor;

TEST(Device, NamesThatAreNoneAreErrors) {
  EXPECT_EQ(device_of("cpu"), at::Device(at::kCPU));
  for (const char* name : {"", "gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:1x", "cuda:999", "CPU"})
    EXPECT_THROW(device_of(name), Error) << name;
}

template <class Base>
class OnGpu : public Base {
 protected:
  void SetUp() override {
    if (!torch::cuda::is_available()) GTEST_SKIP() << "no CUDA device";
  }
};

/// Both devices may stop a step apart, where a residual is at the tolerance.
void expect_alike(const Report& found, const Report& expected) {
  EXPECT_TRUE(found.reason.equal(expected.reason));
  EXPECT_NEAR(double(found.evaluations), double(expected.evaluations), 2);
  EXPECT_EQ(found.trace.size(1), expected.trace.size(1));
}

class SolverOnGpu : public OnGpu<::testing::TestWithParam<SolverCase>> {};
INSTANTIATE_TEST_SUITE_P(All, SolverOnGpu, ::testing::ValuesIn(solver_cases()), PrintName());

TEST_P(SolverOnGpu, FindsTheSameEquilibrium) {
  const SolverCase& c = GetParam();
  const Tensor x = randn({3, 7, 6}, c.type, 4), z0 = at::zeros_like(x);
  const Solution expected = solve(causal_map(x), z0, c.solver, c.tight());
  const Solution found = solve(causal_map(x.cuda()), z0.cuda(), c.solver, c.tight());
  EXPECT_TRUE(found.z.is_cuda());
  EXPECT_LT(relative_error(found.z.cpu(), expected.z), c.error());
  expect_alike(found.report, expected.report);
}

TEST_P(SolverOnGpu, TellsWhatDidNotConverge) {
  const SolverCase& c = GetParam();
  Tensor x = randn({3, 7, 6}, c.type, 4);
  x[1][3][2] = std::numeric_limits<double>::quiet_NaN();
  const StopRule few{.max_steps = 5, .rel_tol = 1e-9};
  const Solution expected = solve(causal_map(x), at::zeros_like(x), c.solver, few);
  const Solution found = solve(causal_map(x.cuda()), at::zeros_like(x).cuda(), c.solver, few);
  EXPECT_TRUE(found.report.reason.equal(expected.report.reason));
  EXPECT_TRUE(found.report.steps.equal(expected.report.steps));
  EXPECT_TRUE(at::allclose(found.report.residual, expected.report.residual, 1e-2, 1e-12, true));
  EXPECT_TRUE(found.z.isfinite().all().item<bool>());
}

TEST_P(SolverOnGpu, OneSampleThatDivergesSpoilsNoOther) {
  const SolverCase& c = GetParam();
  const Tensor slope = at::tensor({0.5, 300.0, 0.5}, c.type).view({3, 1, 1}).cuda();
  const Tensor x = at::full({3, 2, 4}, 0.1, c.type).cuda();
  const Map f = [=](const Tensor& z) { return slope * z * z * z + x; };
  const StopRule stop{.max_steps = 60, .rel_tol = 1e-5};
  const Solution found = solve(f, at::full_like(x, 0.5), c.solver, stop);
  EXPECT_TRUE(found.z.isfinite().all().item<bool>());
  const Tensor reason = found.report.reason.view({3, -1}), z = found.z.cpu();
  for (const int64_t sample : {0, 2}) {
    EXPECT_TRUE(reason[sample].eq(int64_t(Reason::Converged)).all().item<bool>());
    EXPECT_LT(largest(f(found.z)[sample].cpu() - z[sample]), 1e-4);
  }
}

ModelOptions transformer(NormPlace norm, int64_t window, bool causal = true) {
  Transformer cell{.width = 12, .heads = 3, .inner = 20};
  cell.norm = norm;
  cell.window = window;
  cell.causal = causal;
  ModelOptions options;
  options.cell = cell;
  options.initial = {.init_std = 0.4, .embedding_init_std = 0.3};
  return options;
}

std::vector<ModelOptions> models() {
  std::vector<ModelOptions> all{transformer(NormPlace::Post, 0), transformer(NormPlace::Post, 4),
                                transformer(NormPlace::Post, 0, false)};
  ModelOptions trellis = all[0];
  TrellisNet cell{.hidden = 7, .output = 12};
  trellis.cell = cell;
  trellis.initial.init_std = 0.2;
  all.push_back(trellis);
  trellis.mixture = {.experts = 2};
  all.push_back(trellis);
  ModelOptions adaptive = all[0];
  adaptive.embedding.cutoffs = {5, 11};
  adaptive.embedding.div_val = 2;
  all.push_back(adaptive);
  ModelOptions stack = transformer(NormPlace::Pre, 0);
  stack.depth = {.depth = 3, .tied = false, .checkpointed = true};
  all.push_back(stack);
  ModelOptions lstm = all[0];
  lstm.cell = Lstm{{.width = 12}};
  lstm.depth = {.depth = 2, .tied = false, .injection = true};
  all.push_back(lstm);
  return all;
}

class ModelOnGpu : public OnGpu<::testing::TestWithParam<size_t>> {
 protected:
  /// The same weights on both devices.
  static std::shared_ptr<LanguageModel> make(const char* device) {
    at::manual_seed(4);
    auto model = std::make_shared<LanguageModel>(models()[GetParam()], 17);
    model->to(at::kDouble);
    model->to(device_of(device));
    return model;
  }
  static ForwardOptions how(const LanguageModel& model) {
    ForwardOptions how;
    EquilibriumOptions& e = how.equilibrium;
    const Scope scope = model.cell().causal() ? Scope::Causal : Scope::Sample;
    e.solver = Anderson{.scope = scope};
    e.stop = {.max_steps = 400, .rel_tol = 1e-10};
    e.gradient = Implicit{.solver = Anderson{.scope = Scope::Sample}, .stop = e.stop};
    how.history = model.cell().causal() ? 9 : 0;
    return how;
  }
};
INSTANTIATE_TEST_SUITE_P(All, ModelOnGpu, ::testing::Range(size_t(0), models().size()));

TEST_P(ModelOnGpu, HasTheSameLossAndGradients) {
  at::manual_seed(8);
  const Tensor tokens = at::randint(17, {2, 18}, at::kLong);
  std::map<std::string, Tensor> gradients[2];
  double losses[2];
  for (const int side : {0, 1}) {
    const auto model = make(side ? "cuda" : "cpu");
    ForwardOptions options = how(*model);
    const LayerOutput first = model->forward(tokens.narrow(1, 0, 9), {}, options);
    const LayerOutput second = model->forward(tokens.narrow(1, 8, 9), first.histories, options);
    EXPECT_EQ(second.z.device(), model->device());
    const Tensor loss = model->loss(second.z, tokens.narrow(1, 9, 9)).mean();
    loss.backward();
    losses[side] = loss.item<double>();
    EXPECT_TRUE(model->is_explicit() || second.report.converged()) << describe(second.report);
    for (const auto& item : model->named_parameters()) {
      if (item.value().grad().defined()) gradients[side][item.key()] = item.value().grad().cpu();
    }
  }
  EXPECT_NEAR(losses[1], losses[0], 1e-8);
  EXPECT_EQ(gradients[1].size(), gradients[0].size());
  for (const auto& [name, expected] : gradients[0])
    EXPECT_LT((gradients[1].at(name) - expected).norm().item<double>(),
              1e-7 * (1 + expected.norm().item<double>()))
        << name;
}

TEST_P(ModelOnGpu, DecodesTheSameTokens) {
  std::vector<std::vector<int64_t>> drawn[2];
  for (const int side : {0, 1}) {
    const auto model = make(side ? "cuda" : "cpu");
    if (!model->cell().causal()) GTEST_SKIP() << "not causal";
    TextGenerator generator(*model, how(*model).equilibrium, 12, 2);
    generator.feed_all({{1, 2, 3}, {4, 5, 6, 7, 8}});  // of different lengths: hidden positions
    std::vector<at::Generator> random(2, at::make_generator<at::CPUGeneratorImpl>(uint64_t(3)));
    for (int k = 0; k < 12; ++k) drawn[side].push_back(generator.next_all({}, random));
  }
  EXPECT_EQ(drawn[1], drawn[0]);
}

class TrainerOnGpu : public OnGpu<::testing::Test> {};

TEST_F(TrainerOnGpu, LearnsAndGoesOnFromItsState) {
  TrainOptions options;
  options.task =
      CopyMemory{.delay = 5, .train_sequences = 64, .valid_sequences = 8, .test_sequences = 16};
  Transformer cell{.width = 12, .heads = 3, .inner = 20};
  cell.dropout.hidden = 0.1;
  options.model.cell = cell;
  options.loop.batch.batch = 8;
  options.loop.run.device = "cuda";
  Trainer whole(options, load(options.task, ""));
  NamedTensors state;
  std::vector<double> losses;
  for (int step = 0; step < 10; ++step) {
    if (step == 5) {
      for (const auto& [name, tensor] : whole.state()) state[name] = tensor.cpu().clone();
    }
    losses.push_back(whole.step().loss);
  }
  EXPECT_LT(losses.back(), losses.front());
  Trainer resumed(options, load(options.task, ""));
  resumed.restore(state);
  for (size_t step = 5; step < 10; ++step) EXPECT_NEAR(resumed.step().loss, losses[step], 1e-5);
  EXPECT_TRUE(std::isfinite(resumed.evaluate_test().loss));
}

}  // namespace
}  // namespace deq
