// A feed-forward network, and two equilibria, as one equilibrium.
#include "deq/layers/compose.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "deq/gradients/implicit.h"
#include "deq/layers/equilibrium.h"
#include "deq/solvers/anderson.h"
#include "deq/solvers/broyden.h"
#include "deq/solvers/picard.h"
#include "tests/base/scratch.h"

namespace deq {
namespace {

using at::Tensor;

Tensor randn(std::vector<int64_t> sizes, double std = 1) {
  return std * at::randn(sizes, at::kDouble);
}
double largest(const Tensor& t) { return t.abs().max().item<double>(); }

struct Network {
  std::vector<Tensor> weights, biases;
  std::vector<Map> levels;

  explicit Network(const std::vector<int64_t>& sizes) {
    for (size_t i = 0; i + 1 < sizes.size(); ++i) {
      weights.push_back(
          randn({sizes[i + 1], sizes[i]}, 2 / std::sqrt(double(sizes[i]))).requires_grad_(true));
      biases.push_back(randn({sizes[i + 1]}).requires_grad_(true));
      levels.emplace_back([w = weights.back(), b = biases.back()](const Tensor& h) {
        return at::linear(h, w, b).tanh();
      });
    }
  }
  std::vector<Tensor> states(Tensor h) const {
    std::vector<Tensor> all;
    for (const Map& level : levels) all.push_back(h = level(h));
    return all;
  }
  std::vector<Tensor> parameters() const {
    std::vector<Tensor> all = weights;
    all.insert(all.end(), biases.begin(), biases.end());
    return all;
  }
};

EquilibriumOptions with(const Solver& solver) {
  const StopRule stop{.max_steps = 500, .rel_tol = 1e-14};
  return {.solver = solver, .stop = stop, .gradient = Implicit{.solver = solver, .stop = stop}};
}

TEST(AsEquilibrium, IsTheNetworkToTheBitAfterAsManyPlainSteps) {
  at::manual_seed(1);
  for (const size_t depth : {1, 2, 5, 12}) {
    std::vector<int64_t> sizes(depth + 1, 6);
    for (size_t i = 1; i <= depth; ++i) sizes[i] = 4 + int64_t(i % 3);
    const Network network(sizes);
    const Tensor x = randn({3, 2, 6});
    const Composition one = as_equilibrium(network.levels, x);
    const Tensor expected = at::cat(network.states(x), -1);
    Tensor z = randn(one.start.sizes().vec(), 100);
    at::NoGradGuard no_tape;
    for (size_t step = 0; step < depth; ++step) z = one.f(z);
    EXPECT_TRUE(at::equal(z, expected)) << depth;
    const Solution found = solve(one, one.start, Picard{}, {.max_steps = 40, .rel_tol = 0});
    EXPECT_TRUE(at::equal(found.z, expected));
    EXPECT_EQ(found.report.evaluations, int64_t(depth) + 1);
  }
}

TEST(AsEquilibrium, IsTheNetworkByEverySolverAndItsGradientIsBackPropagation) {
  at::manual_seed(2);
  const Network network({6, 10, 8, 7, 4});
  const Tensor x = randn({5, 6}).requires_grad_(true), g = randn({5, 4});
  std::vector<Tensor> inputs = network.parameters();
  inputs.push_back(x);
  const std::vector<Tensor> states = network.states(x);
  const auto expected = torch::autograd::grad({(states.back() * g).sum()}, inputs, {}, true);
  for (const Solver& solver :
       {Solver(Picard{}), Solver(Anderson{}), Solver(Broyden{.memory = 60})}) {
    const Composition one = as_equilibrium(network.levels, x);
    const Equilibrated found = equilibrium(one, one.start, with(solver));
    EXPECT_TRUE(found.report.converged()) << describe(found.report);
    EXPECT_LT(largest(found.z - at::cat(states, -1)), 1e-12);
    const auto gradients = torch::autograd::grad({(one.parts(found.z).back() * g).sum()}, inputs);
    for (size_t i = 0; i < inputs.size(); ++i)
      EXPECT_LT(largest(gradients[i] - expected[i]), 1e-12 * (1 + largest(expected[i]))) << i;
    EXPECT_EQ(found.adjoint().evaluations, 1) << "the direct adjoint is right";
  }
}

TEST(Stack, HasTheSolutionsAndGradientsOfOneAfterTheOther) {
  at::manual_seed(3);
  const Tensor W1 = randn({7, 7}, 0.25).requires_grad_(true),
               W2 = randn({6, 6}, 0.25).requires_grad_(true),
               U2 = randn({6, 7}).requires_grad_(true), x = randn({3, 7}).requires_grad_(true);
  const Map f1 = [&](const Tensor& z) { return (at::linear(z, W1) + x).tanh(); };
  const Above f2 = [&](const Tensor& z, const Tensor& below) {
    return (at::linear(z, W2) + at::linear(below, U2)).tanh();
  };
  const Tensor like1 = at::zeros({3, 7}, at::kDouble), like2 = at::zeros({3, 6}, at::kDouble);
  const Tensor g1 = randn({3, 7}), g2 = randn({3, 6});
  const std::vector<Tensor> inputs{W1, W2, U2, x};
  for (const Solver& solver : {Solver(Anderson{}), Solver(Broyden{.memory = 60})}) {
    const Tensor z1 = equilibrium(f1, like1, with(solver));
    const Tensor z2 = equilibrium([&](const Tensor& z) { return f2(z, z1); }, like2, with(solver));
    const auto expected = torch::autograd::grad({(z1 * g1).sum() + (z2 * g2).sum()}, inputs);
    const Composition both = stack(f1, f2, like1, like2);
    const Equilibrated found = equilibrium(both, both.start, with(solver));
    EXPECT_TRUE(found.report.converged()) << describe(found.report);
    EXPECT_LT(largest(found.z - at::cat({z1, z2}, -1)), 1e-12);
    const auto parts = both.parts(found.z);
    const auto gradients =
        torch::autograd::grad({(parts[0] * g1).sum() + (parts[1] * g2).sum()}, inputs);
    for (size_t i = 0; i < inputs.size(); ++i)
      EXPECT_LT(largest(gradients[i] - expected[i]), 1e-11 * (1 + largest(expected[i]))) << i;
  }
}

TEST(Compose, RefusesWhatDoesNotFit) {
  const Tensor x = at::zeros({2, 3});
  EXPECT_SAYS(testing::error_of([&] { as_equilibrium({}, x); }), "no levels");
  EXPECT_SAYS(testing::error_of([&] {
                as_equilibrium({[](const Tensor& h) { return 2 * h; },
                                [](const Tensor& h) { return h.narrow(0, 0, 1).clone(); }},
                               x);
              }),
              "level 2 gives a state of shape [1, 3]");
  const Map f = [](const Tensor& z) { return z; };
  const Above g = [](const Tensor& z, const Tensor&) { return z; };
  EXPECT_SAYS(testing::error_of([&] { stack(f, g, x, at::zeros({1, 3})); }), "[2, 3] and [1, 3]");
  const Composition both = stack(f, g, x, x);
  EXPECT_SAYS(testing::error_of([&] { both.parts(x); }), "expected 6 features");
}

}  // namespace
}  // namespace deq
