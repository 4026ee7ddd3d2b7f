// The minimum of an energy as a layer, and the two solvers made for it.
#include "deq/layers/energy.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>

#include "deq/cells/activation.h"
#include "deq/gradients/phantom.h"
#include "deq/gradients/unrolled.h"
#include "deq/solvers/anderson.h"
#include "deq/solvers/picard.h"
#include "tests/base/scratch.h"
#include "tests/layers/layer_suite.h"
#include "tests/problems.h"

namespace deq {
namespace {

using at::Tensor;
using namespace testing;

Tensor spread_values(int64_t n, double condition) {
  return at::logspace(0, std::log10(condition), n, 10, at::kDouble);
}

/// (n, n), symmetric, with these eigenvalues.
Tensor symmetric(const Tensor& values, uint64_t seed) {
  const int64_t n = values.size(0);
  const Tensor q = std::get<0>(at::linalg_qr(randn({n, n}, at::kDouble, seed)));
  return at::matmul(q * values, q.t());
}

EnergyOf quadratic(const Tensor& a, const Tensor& b) {
  return [=](const Tensor& z) { return (0.5 * at::matmul(z, a) * z - b * z).sum(1); };
}

EnergyOptions tight(double rel_tol) {
  EnergyOptions options;
  options.stop = {.max_steps = 2000, .rel_tol = rel_tol};
  options.gradient = Implicit{.solver = ConjugateResidual{}, .stop = options.stop};
  return options;
}

TEST(Energy, AQuadraticsMinimumAndGradientsAreThoseOfALinearSystem) {
  const int64_t B = 3, n = 12;
  const Tensor a = symmetric(spread_values(n, 100), 1).requires_grad_(true);
  const Tensor b = randn({B, n}, at::kDouble, 2).requires_grad_(true);
  const Tensor c = randn({B, n}, at::kDouble, 3);
  const EnergyMinimum found =
      minimise_energy(quadratic(a, b), at::zeros({B, n}, at::kDouble), tight(1e-12));
  ASSERT_TRUE(found.report.converged()) << describe(found.report);
  const Tensor expected = at::linalg_solve(a, b.t()).t();
  EXPECT_LT(relative_error(found.z, expected), 1e-9);
  EXPECT_LT(relative_error(found.energy, -0.5 * (b * expected).sum(1)), 1e-9);
  const auto by = [&](const Tensor& z) {
    return torch::autograd::grad({(z * c).sum()}, {a, b}, {}, true);
  };
  const auto gradients = by(found.z), wanted = by(expected);
  // E holds (a + a^T) / 2 only: so does its gradient.
  EXPECT_LT(relative_error(gradients[0], 0.5 * (wanted[0] + wanted[0].t())), 1e-8);
  EXPECT_LT(relative_error(gradients[1], wanted[1]), 1e-8);
  EXPECT_TRUE(found.adjoint().converged()) << describe(found.adjoint());
}

LayerCase smooth_wells() {
  const int64_t B = 5, n = 7;
  LayerCase layer;
  layer.name = "minimise_energy";
  layer.batched = {{"field", randn({B, n}, at::kDouble, 4)}};
  layer.shared = {{"weight", 0.6 * randn({n}, at::kDouble, 5)},
                  {"bias", randn({n}, at::kDouble, 6)}};
  layer.run = [](const Tensors& batched, const Tensors& shared) {
    const Tensor field = batched.at("field"), w = shared.at("weight"), b = shared.at("bias");
    const EnergyOf energy = [=](const Tensor& z) {
      const Tensor near = z * z.roll(1, 1);  // neighbours
      return (0.5 * z.square() + 0.2 * near + activated(Activation::Softplus, w * z + b) -
              field * z)
          .sum(1);
    };
    const EnergyMinimum found = minimise_energy(energy, at::zeros_like(field), tight(1e-13));
    return LayerResult{{{"z", found.z}}, found.report};
  };
  return layer;
}

TEST(Energy, SamplesAreAlone) { check_samples_alone(smooth_wells()); }

TEST(Energy, GradientsAreThoseOfFiniteDifferences) { check_gradients(smooth_wells(), 1e-5, 1e-8); }

TEST(Energy, EveryGradientModeCrossesAMinimum) {
  const int64_t n = 6;
  const Tensor a = symmetric(spread_values(n, 4), 7);
  const Tensor b = randn({1, n}, at::kDouble, 8).requires_grad_(true);
  const Tensor c = randn({1, n}, at::kDouble, 9);
  const auto gradient = [&](const Gradient& mode) {
    EnergyOptions options = tight(1e-13);
    options.solver = Picard{};
    options.step = 0.4;
    options.gradient = mode;
    const EnergyMinimum found =
        minimise_energy(quadratic(a, b), at::zeros({1, n}, at::kDouble), options);
    return torch::autograd::grad({(found.z * c).sum()}, {b})[0];
  };
  const Tensor exact = at::linalg_solve(a, c.t()).t();
  EXPECT_LT(relative_error(gradient(tight(1e-13).gradient), exact), 1e-8);
  EXPECT_LT(relative_error(gradient(Unrolled{.steps = 60}), exact), 1e-8);
  // One step of f alone: eta c.
  EXPECT_LT(relative_error(gradient(OneStep{}), 0.4 * c), 1e-12);
}

/// E at every evaluation of f, by sample.
struct Watched {
  EnergyOf energy;
  std::shared_ptr<std::vector<Tensor>> seen = std::make_shared<std::vector<Tensor>>();
  Map map(double eta) const {
    const Map f = ops::gradient_step(energy, at::full({}, eta, at::kDouble));
    Map watched([f, seen = seen, e = energy](const Tensor& z) {
      seen->push_back(e(z.detach()));
      return f(z);
    });
    return watched.set_energy(f.energy());
  }
};

TEST(Descent, NeverGoesUpWhateverTheStep) {
  const int64_t B = 16, n = 5;
  const Tensor a = randn({B, n}, at::kDouble, 10), b = 3 * randn({B, n}, at::kDouble, 11);
  // Many minima: E(z) = sum z^2 / 20 + a cos(3 z + b).
  const EnergyOf wavy = [=](const Tensor& z) {
    return (0.05 * z.square() + a * (3 * z + b).cos()).sum(1);
  };
  for (const double eta : {0.01, 0.3, 30.0}) {
    const Watched watched{wavy};
    const Solution found = solve(watched.map(eta), 4 * randn({B, n}, at::kDouble, 12), Descent{},
                                 {.max_steps = 300, .rel_tol = 1e-9});
    EXPECT_EQ(found.report.converged_share(), 1) << describe(found.report) << ", eta " << eta;
    for (size_t k = 1; k < watched.seen->size(); ++k) {
      const Tensor before = (*watched.seen)[k - 1], now = (*watched.seen)[k];
      EXPECT_LT((now - before).max().item<double>(), 1e-13 * before.abs().max().item<double>())
          << "step " << k << ", eta " << eta;
    }
  }
}

TEST(Descent, TakesFewerStepsThanPlainDescent) {
  const Tensor a = symmetric(spread_values(20, 200), 13), b = randn({4, 20}, at::kDouble, 14);
  const Map f = ops::gradient_step(quadratic(a, b), at::full({}, 1.0 / 200, at::kDouble));
  const StopRule stop{.max_steps = 5000, .rel_tol = 1e-8};
  const Report plain = solve(f, at::zeros_like(b), Picard{}, stop).report,
               quick = solve(f, at::zeros_like(b), Descent{}, stop).report;
  EXPECT_TRUE(plain.converged() && quick.converged());
  EXPECT_LT(4 * quick.evaluations, plain.evaluations)
      << quick.evaluations << ", plain " << plain.evaluations;
}

TEST(Descent, ItsFirstStepIsWhatItIsTold) {
  const Tensor b = randn({2, 3}, at::kDouble, 15);
  const EnergyOf bowl = [b](const Tensor& z) { return (0.5 * z.square() - b * z).sum(1); };
  const Map f = ops::gradient_step(bowl, at::full({}, 0.1, at::kDouble));
  for (const double step : {1.0, 2.0}) {
    const Solution found = solve(f, at::zeros_like(b), Descent{.step = step}, {.max_steps = 2});
    EXPECT_LT(relative_error(found.z, 0.1 * step * b), 1e-12);
  }
}

TEST(ConjugateResidual, EndsAfterAsManyStepsAsThereAreEigenvalues) {
  for (const int64_t kinds : {1, 2, 4, 7}) {
    const Tensor values = at::arange(kinds, at::kDouble).add(1).repeat({3}) / double(2 * kinds);
    const Tensor a = symmetric(values, uint64_t(20 + kinds));
    const Tensor b = randn({2, 3 * kinds}, at::kDouble, 21);
    const Map f = ops::gradient_step(quadratic(a, b), at::ones({}, at::kDouble));
    const Solution found =
        solve(f, at::zeros_like(b), ConjugateResidual{}, {.max_steps = 40, .rel_tol = 1e-10});
    EXPECT_TRUE(found.report.converged()) << describe(found.report);
    EXPECT_LE(found.report.evaluations, kinds + 2);
    EXPECT_LT(relative_error(found.z, at::linalg_solve(a, b.t()).t()), 1e-8);
  }
}

TEST(ConjugateResidual, NeedsFewerProductsThanAnderson) {
  const Tensor a = symmetric(spread_values(40, 30) / 30, 22), b = randn({3, 40}, at::kDouble, 23);
  const Map f = ops::gradient_step(quadratic(a, b), at::ones({}, at::kDouble));
  const StopRule stop{.max_steps = 500, .rel_tol = 1e-8};
  const Report own = solve(f, at::zeros_like(b), ConjugateResidual{}, stop).report,
               anderson = solve(f, at::zeros_like(b), Anderson{}, stop).report;
  EXPECT_TRUE(own.converged());
  EXPECT_LT(own.evaluations, 0.8 * anderson.evaluations);
}

// From rounding in r, which must not grow from step to step.
TEST(ConjugateResidual, ReachesTightTolerancesOfStiffMaps) {
  for (const double condition : {100.0, 1e3, 1e4}) {
    for (const uint64_t seed : {40, 41, 42}) {
      const Tensor a = symmetric(spread_values(40, condition) / condition, seed);
      const Tensor b = randn({3, 40}, at::kDouble, seed + 10);
      const Map f = ops::gradient_step(quadratic(a, b), at::ones({}, at::kDouble));
      for (const double tolerance : {1e-3, 1e-5, 1e-8}) {
        const StopRule stop{.max_steps = 2000, .rel_tol = tolerance};
        const Report own = solve(f, at::zeros_like(b), ConjugateResidual{}, stop).report,
                     anderson = solve(f, at::zeros_like(b), Anderson{}, stop).report;
        EXPECT_TRUE(own.converged()) << describe(own) << ", condition " << condition;
        EXPECT_LT(own.evaluations, (tolerance < 1e-3 ? 0.8 : 1) * double(anderson.evaluations))
            << "condition " << condition << ", to " << tolerance;
      }
    }
  }
}

TEST(Energy, AHopfieldNetworkRetrievesItsPatternsInOneStep) {
  const int64_t K = 6, D = 32;
  const Tensor patterns = randn({K, D}, at::kDouble, 24).sign();
  const double beta = 2;
  const EnergyOf energy = hopfield_energy(patterns, beta);
  const Tensor start = patterns + 0.3 * randn({K, D}, at::kDouble, 25);
  const Map f = ops::gradient_step(energy, at::ones({}, at::kDouble));
  const Tensor expected =
      at::matmul(at::softmax(beta * at::matmul(start, patterns.t()), 1), patterns);
  EXPECT_LT(relative_error(f(start), expected), 1e-12);
  EXPECT_LT(relative_error(f(start), patterns), 1e-6) << "they stand apart";
  EnergyOptions options = tight(1e-10);
  options.step = 1;
  const EnergyMinimum found = minimise_energy(energy, start, options);
  EXPECT_TRUE(found.report.converged()) << describe(found.report);
  EXPECT_LT(relative_error(found.z, patterns), 1e-9);
  EXPECT_TRUE(found.energy.lt(energy(start)).all().item<bool>());
}

TEST(Energy, TellsWhatIsWrong) {
  const Tensor z0 = at::zeros({2, 3}, at::kDouble);
  const EnergyOf bowl = [](const Tensor& z) { return z.square().sum(1); };
  EXPECT_SAYS(
      error_of([&] { minimise_energy([](const Tensor& z) { return z.square().sum(); }, z0); }),
      "expected [2], a number for each sample");
  EXPECT_SAYS(error_of([&] { minimise_energy(bowl, z0, {.step = 0}); }), "step = 0");
  EXPECT_SAYS(error_of([&] { minimise_energy(bowl, at::zeros({2}, at::kLong)); }), "Long");
  const Tensor w = at::randn({3}, at::kDouble).requires_grad_(true);
  EXPECT_SAYS(
      error_of([&] { minimise_energy([&](const Tensor& z) { return (w * z).sum(1); }, z0 + 1); }),
      "second derivatives");
  EXPECT_SAYS(error_of([&] {
                minimise_energy([&](const Tensor&) { return at::ones({2}, at::kDouble); }, z0);
              }),
              "does not depend on z");
  const Map f = [](const Tensor& z) { return 0.5 * z; };
  EXPECT_SAYS(error_of([&] { solve(f, z0, Descent{}); }), "solver descent: this f has no energy");
  EXPECT_SAYS(error_of([&] { solve(f, z0, ConjugateResidual{}); }), "no energy");
  const Map down = ops::gradient_step(bowl, at::full({}, 0.1, at::kDouble));
  EXPECT_SAYS(error_of([&] { solve(down, z0, Descent{.scope = Scope::Position}); }), "position");
  EXPECT_SAYS(error_of([&] { hopfield_energy(at::ones({2, 3}), 0); }), "beta = 0");
  EXPECT_SAYS(error_of([&] {
                const c10::InferenceMode mode;
                solve(down, at::zeros({2, 3}, at::kDouble));
              }),
              "InferenceMode");
}

TEST(Energy, ReLUsHaveNoSecondDerivativeAndTheAdjointSaysSo) {
  const Tensor w = at::ones({3}, at::kDouble).requires_grad_(true);
  const EnergyMinimum found = minimise_energy(
      [&](const Tensor& z) { return (w * z).relu().sum(1); }, at::full({2, 3}, -1.0, at::kDouble));
  EXPECT_TRUE(found.report.converged()) << "flat";
  found.z.sum().backward();
  EXPECT_EQ(found.adjoint().count(Reason::Converged), 0) << describe(found.adjoint());
}

TEST(Energy, AnEnergyThatIsNotFiniteIsReported) {
  const EnergyOf broken = [](const Tensor& z) {
    return (z.square() + (z - 1).log()).sum(1);  // NaN below 1
  };
  const EnergyMinimum found = minimise_energy(broken, at::zeros({2, 3}, at::kDouble));
  EXPECT_EQ(found.report.count(Reason::NonFinite), 2) << describe(found.report);
}

}  // namespace
}  // namespace deq
