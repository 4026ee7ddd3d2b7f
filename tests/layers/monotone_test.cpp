// Monotone equilibria and the methods that split them: one solution, from any start, with bounds.
#include "deq/cells/monotone.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "deq/cells/monotone_convolution.h"
#include "deq/gradients/implicit.h"
#include "deq/layers/equilibrium.h"
#include "deq/ops/affine.h"
#include "deq/solvers/anderson.h"
#include "deq/solvers/douglas_rachford.h"
#include "deq/solvers/forward_backward.h"
#include "deq/solvers/peaceman_rachford.h"
#include "deq/solvers/picard.h"
#include "tests/base/scratch.h"
#include "tests/layers/layer_suite.h"

namespace deq {
namespace {

using at::Tensor;
using testing::LayerCase;
using testing::LayerResult;

Tensor randn(std::vector<int64_t> sizes, double std = 1) {
  return std * at::randn(sizes, at::kDouble);
}

EquilibriumOptions with(const Solver& solver, double tolerance = 1e-12, int64_t steps = 5000) {
  const StopRule stop{.max_steps = steps, .rel_tol = tolerance};
  return {.solver = solver, .stop = stop, .gradient = Implicit{.solver = solver, .stop = stop}};
}

/// A W whose spectral radius is far above 1.
LayerCase fully_connected(const std::string& name, Activation s, const EquilibriumOptions& how,
                          double margin, int64_t direct, int64_t batch = 5, double size = 1) {
  at::manual_seed(3);
  constexpr int64_t n = 5, inputs = 3;
  return {name,
          {{"x", randn({batch, inputs})}},
          {{"A", randn({n, n}, 0.5 * size)},
           {"B", randn({n, n}, 0.7 * size)},
           {"U", randn({n, inputs})},
           {"b", randn({n})}},
          [=](const testing::Tensors& batched, const testing::Tensors& shared) {
            const Tensor W = monotone_weight(shared.at("A"), shared.at("B"), margin);
            const Tensor c = ops::affine(batched.at("x").unsqueeze(1),
                                         ops::affine_weight(shared.at("U")), shared.at("b"));
            const Map f = affine_equilibrium(W, c, s, margin, direct);
            const Equilibrated found = equilibrium(f, at::zeros_like(c).detach(), how);
            return LayerResult{{{"z", found.z}}, found.report};
          }};
}

const std::vector<std::pair<std::string, Solver>>& splittings() {
  static const std::vector<std::pair<std::string, Solver>> all{
      {"peaceman-rachford", PeacemanRachford{}},
      {"peaceman-rachford without memory", PeacemanRachford{.memory = 0}},
      {"douglas-rachford", DouglasRachford{}}};
  return all;
}
TEST(Monotone, ASampleIsAlone) {
  for (const auto& [name, solver] : splittings())
    check_samples_alone(fully_connected(name, Activation::Relu, with(solver, 1e-8), 0.5, 0));
  const Solver solver = PeacemanRachford{};
  for (const Activation s : {Activation::Relu, Activation::Tanh})
    check_samples_alone(fully_connected("direct", s, with(solver, 1e-8), 0.5, 64));
  for (const Activation s : {Activation::Tanh, Activation::Sigmoid, Activation::Softplus})
    check_samples_alone(fully_connected("activation", s, with(solver, 1e-6), 0.5, 0, 3));
  check_samples_alone(fully_connected("forward-backward", Activation::Tanh,
                                      with(ForwardBackward{}, 1e-8), 2, 0, 3, 0.3));
}

TEST(Monotone, GradientsAreThoseOfFiniteDifferences) {
  for (const auto& [name, solver] : splittings())
    check_gradients(fully_connected(name, Activation::Relu, with(solver, 1e-13), 0.5, 0, 2));
  check_gradients(fully_connected("forward-backward", Activation::Relu,
                                  with(ForwardBackward{}, 1e-13), 2, 0, 2, 0.3));
  const Solver solver = PeacemanRachford{};
  for (const auto& [s, direct] :
       {std::pair(Activation::Tanh, 0), std::pair(Activation::Sigmoid, 64),
        std::pair(Activation::Softplus, 0)})
    check_gradients(fully_connected("activation", s, with(solver, 1e-13), 0.5, direct, 1));
}

LayerCase convolution(const std::string& name, const EquilibriumOptions& how, int64_t dimensions,
                      Activation s, int64_t batch = 3) {
  at::manual_seed(5);
  const auto cell = std::make_shared<MonotoneConvolutionCell>(MonotoneConvolution{
      .width = 3, .input = 2, .dimensions = dimensions, .margin = 1, .activation = s});
  cell->initialise(0.5);
  cell->to(at::kDouble);
  return {name,
          {{"x", dimensions == 1 ? randn({batch, 5, 2}) : randn({batch, 3, 4, 2})}},
          {},
          [=](const testing::Tensors& batched, const testing::Tensors&) {
            const Tensor& x = batched.at("x");
            std::vector<int64_t> shape = x.sizes().vec();
            shape.back() = 3;
            const Equilibrated found =
                equilibrium(cell->bind(x, {}).f, at::zeros(shape, at::kDouble), how);
            return LayerResult{{{"z", found.z}}, found.report};
          }};
}

TEST(MonotoneConvolution, ASampleIsAloneAndGradientsAreThoseOfFiniteDifferences) {
  for (const int64_t dimensions : {1, 2}) {
    for (const Solver& solver : {Solver(PeacemanRachford{}), Solver(ForwardBackward{})}) {
      const std::string name = solver.name();
      check_samples_alone(convolution(name, with(solver, 1e-6), dimensions, Activation::Relu));
      check_gradients(convolution(name, with(solver, 1e-13), dimensions, Activation::Relu, 1));
    }
  }
}

// 20 starts, far from each other.
TEST(Monotone, EveryStartEndsAtTheSameEquilibrium) {
  at::manual_seed(8);
  MonotoneCell cell({.width = 20, .input = 6, .margin = 0.1});
  cell.initialise(0.5);
  const auto convolution = std::make_shared<MonotoneConvolutionCell>(
      MonotoneConvolution{.width = 4, .dimensions = 2, .margin = 0.1});
  convolution->initialise(0.5);
  cell.to(at::kDouble);
  convolution->to(at::kDouble);
  constexpr double kTolerance = 1e-9;
  for (const auto& [name, solver] : splittings()) {
    const Tensor x = randn({20, 6}).narrow(0, 0, 1).expand({20, 6}).unsqueeze(1).contiguous();
    const Tensor places = randn({1, 5, 6, 4}).expand({20, 5, 6, 4}).contiguous();
    for (const auto& [f, start] :
         {std::pair(cell.bind(x, {}).f, randn({20, 1, 20}, 30)),
          std::pair(convolution->bind(places, {}).f, randn({20, 5, 6, 4}, 30))}) {
      const Solution found = solve(f, start, solver, {.max_steps = 20000, .rel_tol = kTolerance});
      EXPECT_TRUE(found.report.converged()) << name << ": " << describe(found.report);
      const Tensor first = found.z.narrow(0, 0, 1);
      const Tensor apart = (found.z - first).flatten(1).norm(2, {1}).max() / first.norm();
      EXPECT_LT(apart.item<double>(), 10 * kTolerance) << name;
    }
  }
}

TEST(Monotone, NoPerturbationMovesTheEquilibriumByMoreThanItsBound) {
  at::manual_seed(9);
  MonotoneCell cell({.width = 12, .input = 5, .margin = 0.2});
  cell.initialise(0.6);
  cell.to(at::kDouble);
  at::NoGradGuard no_tape;
  const double bound = cell.sensitivity();
  const auto equilibria = [&](const Tensor& x) {
    const Solution found =
        solve(cell.bind(x.unsqueeze(1), {}).f, at::zeros({x.size(0), 1, 12}, at::kDouble),
              PeacemanRachford{}, {.max_steps = 2000, .rel_tol = 1e-13});
    EXPECT_TRUE(found.report.converged());
    return found.z.squeeze(1);
  };
  const Tensor x = randn({10000, 5});
  const Tensor by = randn({10000, 5}) * at::exp(4 * randn({10000, 1}) - 4);
  const Tensor moved = (equilibria(x + by) - equilibria(x)).norm(2, {1});
  const Tensor share = moved / (bound * by.norm(2, {1}));
  EXPECT_LE(share.max().item<double>(), 1 + 1e-9);
  EXPECT_GT(share.max().item<double>(), 0.05) << "the bound says something";
}

// Beside the best of the steps that the published code tries, by halves from 1 on.
TEST(Monotone, TheChosenStepIsNearlyTheBestAndMemorySavesMore) {
  for (const double margin : {1.0, 0.1}) {
    for (const double std : {0.1, 0.2}) {
      at::manual_seed(10);
      MonotoneCell cell({.width = 87, .input = 30, .margin = margin});
      cell.initialise(std);
      cell.to(at::kDouble);
      const Map f = cell.bind(randn({16, 1, 30}), {}).f;
      const auto steps = [&](const PeacemanRachford& solver) {
        const Solution found = solve(f, at::zeros({16, 1, 87}, at::kDouble), solver,
                                     {.max_steps = 5000, .rel_tol = 1e-8});
        EXPECT_TRUE(found.report.converged());
        return found.report.steps.to(at::kDouble).mean().item<double>();
      };
      double best = 1e9;
      for (double alpha = 1; alpha > 0.05; alpha /= 2)
        best = std::min(best, steps({.alpha = alpha, .memory = 0}));
      EXPECT_LE(steps({.memory = 0}), 1.15 * best);
      EXPECT_LE(steps({.memory = 16}), 0.98 * steps({.memory = 0}));
    }
  }
}

TEST(Monotone, ASplittingEvaluatesFOnlyToBeginAndToBeSure) {
  MonotoneCell cell({.width = 20, .input = 6});
  const Tensor x = at::randn({8, 1, 6});
  const Map f = cell.bind(x, {}).f;
  int64_t calls = 0;
  Map counted([&](const Tensor& z) {
    ++calls;
    return f(z);
  });
  counted.set_resolvent(f.resolvent());
  const Solution found = solve(counted, at::zeros({8, 1, 20}), PeacemanRachford{},
                               {.max_steps = 100, .rel_tol = 1e-6});
  EXPECT_TRUE(found.report.converged());
  EXPECT_EQ(found.report.evaluations, calls);
  EXPECT_LE(calls, 2);
  EXPECT_GT(found.report.steps.max().item<int64_t>(), 3);
}

TEST(Monotone, WhatIsNotMonotoneIsRefusedByTheMethodsThatNeedIt) {
  for (const auto& [name, solver] : splittings()) {
    const auto message = testing::error_of([&, &own = solver] {
      solve([](const Tensor& z) { return 0.5 * z; }, at::zeros({2, 3}), own);
    });
    EXPECT_SAYS(message, "has no resolvent");
  }
  EXPECT_SAYS(testing::error_of([] { Monotone{.margin = 0}.make({}); }), "margin");
  EXPECT_SAYS(testing::error_of([] { MonotoneConvolution{.kernel = 2}.make({}); }), "odd");
}

TEST(Monotone, ForwardBackwardEndsThereTooWhereItIsWellConditioned) {
  at::manual_seed(14);
  MonotoneCell cell({.width = 20, .input = 6, .margin = 1});
  cell.initialise(0.15);
  cell.to(at::kDouble);
  const Map f = cell.bind(randn({20, 1, 6}), {}).f;
  const StopRule stop{.max_steps = 5000, .rel_tol = 1e-12};
  const Tensor known = solve(f, at::zeros({20, 1, 20}, at::kDouble), PeacemanRachford{}, stop).z;
  for (const int64_t memory : {0, 8}) {
    const Solution found =
        solve(f, randn({20, 1, 20}, 30), ForwardBackward{.memory = memory}, stop);
    EXPECT_TRUE(found.report.converged()) << describe(found.report);
    EXPECT_LT((found.z - known).abs().max().item<double>(), 1e-10);
  }
}

TEST(Monotone, EveryScopeFindsIt) {
  at::manual_seed(12);
  MonotoneCell cell({.width = 10, .input = 4, .margin = 0.3});
  cell.initialise(0.5);
  cell.to(at::kDouble);
  const Map f = cell.bind(randn({3, 5, 4}), {}).f;
  const StopRule stop{.max_steps = 3000, .rel_tol = 1e-12};
  const Tensor z0 = at::zeros({3, 5, 10}, at::kDouble);
  const Tensor known = solve(f, z0, PeacemanRachford{.memory = 0}, stop).z;
  for (const auto& [name, solver] : splittings()) {
    for (const Scope scope : {Scope::Sample, Scope::Position, Scope::Causal, Scope::Whole}) {
      const Solution found = solve(f, z0, with_scope(solver, scope), stop);
      EXPECT_TRUE(found.report.converged()) << name << int(scope);
      EXPECT_LT((found.z - known).abs().max().item<double>(), 1e-9) << name << int(scope);
    }
  }
}

TEST(Monotone, SinglePrecisionIsRightToItsDigits) {
  at::manual_seed(13);
  MonotoneCell cell({.width = 30, .input = 8, .margin = 0.5});
  cell.initialise(0.3);
  const Tensor x = at::randn({6, 1, 8}), z0 = at::zeros({6, 1, 30});
  std::vector<std::pair<Tensor, Tensor>> found;  // z and the gradient of A
  for (const at::ScalarType type : {at::kFloat, at::kDouble}) {
    cell.to(type);
    cell.zero_grad();
    const Tensor z = equilibrium(cell.bind(x.to(type), {}).f, z0.to(type),
                                 with(PeacemanRachford{}, type == at::kFloat ? 1e-6 : 1e-12));
    z.sin().sum().backward();
    found.emplace_back(z.detach().to(at::kDouble),
                       cell.named_parameters()["A"].grad().to(at::kDouble));
  }
  EXPECT_LT((found[0].first - found[1].first).abs().max().item<double>(),
            2e-5 * found[1].first.abs().max().item<double>());
  EXPECT_LT((found[0].second - found[1].second).abs().max().item<double>(),
            2e-5 * found[1].second.abs().max().item<double>());
}

TEST(Monotone, StepsThatRunOutAreReported) {
  MonotoneCell cell({.width = 20, .input = 6, .margin = 0.01});
  cell.initialise(1);
  const Map f = cell.bind(at::randn({4, 1, 6}), {}).f;
  const Solution found =
      solve(f, at::zeros({4, 1, 20}), PeacemanRachford{.memory = 0}, {.max_steps = 3});
  EXPECT_EQ(found.report.count(Reason::MaxSteps), 4);
  EXPECT_TRUE(found.z.isfinite().all().item<bool>());
}

TEST(Monotone, ProximalOperatorsMeetTheirCondition) {
  const Tensor w = at::linspace(-30, 30, 301, at::kDouble);
  for (const Activation s : {Activation::Tanh, Activation::Sigmoid, Activation::Softplus}) {
    for (const double alpha : {0.01, 0.3, 1.0, 2.5, 100.0}) {
      const Tensor z = proximal(s, w, alpha);  // z = s(t), (1 - alpha) z + alpha t = w
      const Tensor t = (w - (1 - alpha) * z) / alpha;
      EXPECT_LT((activated(s, t) - z).abs().max().item<double>(), 1e-12) << int(s) << " " << alpha;
    }
  }
}

}  // namespace
}  // namespace deq
