// Implicit models that are well posed: the projection, the eigenvalue's bounds, and what they
// prove.
#include "deq/cells/implicit.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>

#include "deq/cells/perron_frobenius.h"
#include "deq/cells/project_rows.h"
#include "deq/gradients/implicit.h"
#include "deq/layers/equilibrium.h"
#include "deq/solvers/anderson.h"
#include "deq/solvers/picard.h"
#include "tests/base/scratch.h"
#include "tests/layers/layer_suite.h"

namespace deq {
namespace {

using at::Tensor;
using testing::error_of;

Tensor randn(std::vector<int64_t> sizes, double std = 1) {
  return std * at::randn(sizes, at::kDouble);
}

/// sign(a) max(|a| - t, 0) with the t that bisection in 80 bits finds.
Tensor by_bisection(const Tensor& A, double kappa) {
  Tensor out = A.clone();
  const int64_t k = A.size(1);
  for (int64_t i = 0; i < A.size(0); ++i) {
    double* row = out.data_ptr<double>() + i * k;
    const auto sum = [&](long double t) {
      long double total = 0;
      for (int64_t j = 0; j < k; ++j)
        total += std::max<long double>(std::abs((long double)(row[j])) - t, 0);
      return total;
    };
    if (sum(0) <= kappa) continue;
    long double low = 0, high = A[i].abs().max().item<double>();
    for (int step = 0; step < 200; ++step) {
      const long double middle = (low + high) / 2;
      (sum(middle) > kappa ? low : high) = middle;
    }
    for (int64_t j = 0; j < k; ++j)
      row[j] = std::copysign(
          double(std::max<long double>(std::abs((long double)(row[j])) - high, 0)), row[j]);
  }
  return out;
}

TEST(ProjectRows, IsTheProjection) {
  at::manual_seed(4);
  Tensor tied = at::randint(-3, 4, {200, 17}, at::kDouble), huge = randn({200, 17});
  huge = huge * at::exp(30 * at::rand({200, 1}, at::kDouble));
  Tensor sparse = randn({200, 17}) * at::rand({200, 17}, at::kDouble).gt(0.8);
  for (const Tensor& A : {randn({2000, 17}), tied, huge, sparse, at::zeros({3, 4}, at::kDouble),
                          at::ones({3, 1}, at::kDouble), at::full({2, 9}, -5.0, at::kDouble)}) {
    for (const double kappa : {0.95, 1.0, 0.01, 7.0}) {
      const Tensor ours = project_rows_l1(A, kappa), theirs = by_bisection(A, kappa);
      const Tensor scale = A.abs().amax({1}, true).clamp_min(kappa) * 1e-15;
      EXPECT_LE(((ours - theirs).abs() / scale).max().item<double>(), 20) << kappa;
      EXPECT_LE(ours.abs().sum(1).max().item<double>(), kappa * (1 + 1e-14));
      EXPECT_TRUE(at::equal(project_rows_l1(ours, kappa), ours)) << "to the bit";
      const Tensor inside = A.abs().sum(1).le(kappa);
      EXPECT_TRUE(at::equal(ours.index({inside}), A.index({inside})));
      EXPECT_TRUE(ours.mul(A).ge(0).all().item<bool>());
    }
  }
  const Tensor single = project_rows_l1(randn({50, 9}, 5).to(at::kFloat), 0.95);
  EXPECT_EQ(single.scalar_type(), at::kFloat);
  EXPECT_LE(single.abs().sum(1).max().item<double>(), 0.95 * (1 + 1e-5));
}

// Every digit of a row that is 1e12 times as large as the ball.
TEST(ProjectRows, LosesNothingToARowsSize) {
  const Tensor A = at::tensor({1e12 + 0.25, 1e12, -1e12 + 0.5, 3.0}, at::kDouble).view({1, 4});
  const Tensor out = project_rows_l1(A, 0.5);
  EXPECT_TRUE(at::equal(out, at::tensor({0.375, 0.125, 0.0, 0.0}, at::kDouble).view({1, 4})))
      << out;
}

TEST(ProjectRows, HasTheDerivativeOfItsFace) {
  at::manual_seed(5);
  const Tensor A = randn({6, 8}).requires_grad_(true), g = randn({6, 8});
  const auto found = torch::autograd::grad({(project_rows_l1(A, 0.95) * g).sum()}, {A})[0];
  at::NoGradGuard no_tape;
  for (int64_t i = 0; i < A.numel(); ++i) {
    constexpr double kStep = 1e-6;
    Tensor up = A.clone(), down = A.clone();
    up.view({-1})[i] += kStep;
    down.view({-1})[i] -= kStep;
    const double expected =
        (((project_rows_l1(up, 0.95) - project_rows_l1(down, 0.95)) * g).sum() / (2 * kStep))
            .item<double>();
    EXPECT_NEAR(found.reshape({-1})[i].item<double>(), expected, 1e-8);
  }
}

TEST(ProjectRows, RefusesWhatHasNoProjection) {
  const Tensor A = at::ones({2, 2}, at::kDouble);
  for (const double kappa : {0.0, -1.0, double(NAN), double(INFINITY)})
    EXPECT_SAYS(error_of([&] { project_rows_l1(A, kappa); }), "expected above 0");
  Tensor bad = A.clone();
  bad[1][0] = NAN;
  EXPECT_SAYS(error_of([&] { project_rows_l1(bad, 0.5); }), "row 1 of A holds NaN");
  EXPECT_SAYS(error_of([&] { project_rows_l1(A[0], 0.5); }), "[2] of Double");
  EXPECT_SAYS(error_of([&] { project_rows_l1(A, 0.5, -A); }), "above 0");
}

void expect_bounds(const Tensor& A, double gap) {
  const PerronFrobenius found = perron_frobenius(A);
  const double known = at::linalg_eigvals(A.abs()).abs().max().item<double>();
  const double size = std::max(known, 1e-300);
  EXPECT_LE(found.lower, known + 1e-10 * size);
  EXPECT_GE(found.upper, known - 1e-10 * size);
  EXPECT_LE(found.upper - found.lower, gap * size);
  EXPECT_TRUE(found.vector.gt(0).all().item<bool>());
}

TEST(PerronFrobenius, BoundsTheLargestEigenvalueFromBothSides) {
  at::manual_seed(6);
  for (int draw = 0; draw < 30; ++draw) {
    expect_bounds(randn({12, 12}), 1e-12);
    expect_bounds(randn({12, 12}) * at::rand({12, 12}, at::kDouble).gt(0.6), 1e-12);  // pieces
    const Tensor scale = at::exp(10 * at::rand({12}, at::kDouble));
    expect_bounds(randn({12, 12}) * scale.unsqueeze(1) / scale.unsqueeze(0), 1e-12);
  }
  const Tensor cycle = at::roll(at::eye(7, at::kDouble), 1, 0);
  expect_bounds(cycle, 1e-12);
  Tensor slow = at::roll(at::eye(200, at::kDouble), 1, 0) + at::eye(200, at::kDouble);
  slow[3][90] = 0.5;  // eigenvalues close to each other
  const PerronFrobenius found = perron_frobenius(slow);
  EXPECT_LE(found.upper - found.lower, 1e-11);
  EXPECT_GT(found.lower, 2);
}

TEST(PerronFrobenius, OfATriangleIsItsDiagonal) {
  const Tensor A = at::triu(randn({9, 9}, 100), 1);
  EXPECT_EQ(perron_frobenius(A).upper, 0);
  const PerronFrobenius found = perron_frobenius(A + 0.25 * at::eye(9, at::kDouble));
  EXPECT_EQ(found.lower, 0.25);
  EXPECT_EQ(found.upper, 0.25);
  EXPECT_EQ(found.piece[8], 0) << "what depends on nothing is first";
  EXPECT_EQ(perron_frobenius(at::zeros({0, 0})).upper, 0);
  EXPECT_SAYS(error_of([] { perron_frobenius(at::zeros({2, 3})); }), "expected (n, n)");
  EXPECT_SAYS(error_of([] { perron_frobenius(at::full({2, 2}, NAN)); }), "finite");
}

std::shared_ptr<WellPosedCell> cell_of(const WellPosed& options, double std = 0.5) {
  const auto cell = std::make_shared<WellPosedCell>(options);
  cell->initialise(std);
  cell->to(at::kDouble);
  return cell;
}

testing::LayerCase layer(const WellPosed& options, const EquilibriumOptions& how) {
  at::manual_seed(7);
  const auto cell = cell_of(options);
  return {"well-posed",
          {{"u", randn({4, options.input})}},
          {},
          [=](const testing::Tensors& batched, const testing::Tensors&) {
            const Tensor u = batched.at("u").unsqueeze(1);
            const Equilibrated found = equilibrium(
                cell->bind(u, {}).f, at::zeros({u.size(0), 1, options.width}, at::kDouble), how);
            return testing::LayerResult{{{"x", found.z}}, found.report};
          }};
}

TEST(WellPosed, ASampleIsAloneAndGradientsAreThoseOfFiniteDifferences) {
  for (const Solver& solver : {Solver(Anderson{}), Solver(Picard{})}) {
    for (const int64_t direct : {0, 64}) {
      const auto how = [&](double tolerance) -> EquilibriumOptions {
        const StopRule stop{.max_steps = 2000, .rel_tol = tolerance};
        return {
            .solver = solver, .stop = stop, .gradient = Implicit{.solver = solver, .stop = stop}};
      };
      WellPosed options{.width = 8, .input = 3, .direct = direct};
      check_samples_alone(layer(options, how(1e-8)));
      for (const WellPosedness condition :
           {WellPosedness::InfinityNorm, WellPosedness::PerronFrobenius}) {
        options.condition = condition;
        options.activation = Activation::Tanh;
        check_gradients(layer(options, how(1e-13)));
      }
    }
  }
}

TEST(WellPosed, EveryStartEndsAtTheSameEquilibrium) {
  at::manual_seed(8);
  for (const WellPosedness condition :
       {WellPosedness::InfinityNorm, WellPosedness::PerronFrobenius}) {
    const auto cell = cell_of({.width = 20, .input = 6, .condition = condition}, 2);
    const Tensor u = randn({1, 1, 6}).expand({20, 1, 6}).contiguous();
    for (const Solver& solver : {Solver(Anderson{}), Solver(Picard{})}) {
      const Solution found = solve(cell->bind(u, {}).f, randn({20, 1, 20}, 30), solver,
                                   {.max_steps = 3000, .rel_tol = 1e-10});
      EXPECT_TRUE(found.report.converged()) << describe(found.report);
      const Tensor first = found.z.narrow(0, 0, 1);
      EXPECT_LT(((found.z - first).norm() / first.norm()).item<double>(), 1e-8);
    }
  }
}

TEST(WellPosed, NoPerturbationMovesTheEquilibriumByMoreThanItsBound) {
  at::manual_seed(9);
  const auto cell = cell_of({.width = 12, .input = 5, .kappa = 0.9});
  at::NoGradGuard no_tape;
  const Tensor bound = cell->sensitivity();
  const auto equilibria = [&](const Tensor& u) {
    return solve(cell->bind(u.unsqueeze(1), {}).f, at::zeros({u.size(0), 1, 12}, at::kDouble),
                 Anderson{}, {.max_steps = 2000, .rel_tol = 1e-14})
        .z.squeeze(1);
  };
  const Tensor u = randn({10000, 5});
  const Tensor by = randn({10000, 5}) * at::exp(4 * randn({10000, 1}) - 4);
  const Tensor moved = (equilibria(u + by) - equilibria(u)).abs();
  const Tensor share = moved / (at::linear(by.abs(), bound) + 1e-9);
  EXPECT_LE(share.max().item<double>(), 1 + 1e-9);
  EXPECT_GT(share.max().item<double>(), 0.2) << "the bound says something";
}

// A descent that pulls A out of the ball.
TEST(WellPosed, AIsProjectedAfterEachStep) {
  at::manual_seed(10);
  for (const WellPosedness condition :
       {WellPosedness::InfinityNorm, WellPosedness::PerronFrobenius}) {
    const auto cell = cell_of({.width = 7, .input = 3, .kappa = 0.8, .condition = condition}, 0.3);
    const Tensor A = cell->named_parameters()["A"], u = randn({5, 1, 3});
    for (int step = 0; step < 20; ++step) {
      const Map f = cell->bind(u, {}).f;
      if (condition == WellPosedness::InfinityNorm) {
        EXPECT_LE(A.abs().sum(1).max().item<double>(), 0.8 * (1 + 1e-12));
      }
      EXPECT_LE(perron_frobenius(A).upper, 0.8 * (1 + 1e-9));
      const Equilibrated found = equilibrium(f, at::zeros({5, 1, 7}, at::kDouble));
      EXPECT_TRUE(found.report.converged());
      cell->zero_grad();
      (-found.z.square().sum()).backward();
      at::NoGradGuard no_tape;
      for (Tensor& p : cell->parameters())
        if (p.grad().defined()) p.sub_(0.1 * p.grad());
    }
    cell->eval();
    const Tensor before = A.detach().clone();
    cell->bind(u, {});
    EXPECT_TRUE(at::equal(A, before)) << "evaluation writes nothing";
  }
}

TEST(WellPosed, RefusesWhatIsNot) {
  for (const double kappa : {1.0, 0.0, 1.5, double(NAN)})
    EXPECT_SAYS(error_of([&] { WellPosed{.kappa = kappa}.make({}); }), "kappa");
  const auto cell = cell_of({.width = 4, .input = 2});
  at::NoGradGuard no_tape;
  cell->named_parameters()["A"][2][1] = NAN;
  EXPECT_SAYS(error_of([&] {
                cell->bind(at::zeros({1, 1, 2}, at::kDouble), {});
              }),
              "row 2 of A holds NaN");
}

}  // namespace
}  // namespace deq
