#include "deq/solvers/anderson.h"

#include <gtest/gtest.h>

#include "deq/solvers/picard.h"
#include "tests/problems.h"

namespace deq {
namespace {

using at::Tensor;
using namespace testing;

void expect_same(const Solution& a, const Solution& b) {
  EXPECT_TRUE(at::equal(a.z, b.z)) << largest(a.z - b.z);
  EXPECT_TRUE(at::equal(a.report.trace, b.report.trace));
  EXPECT_EQ(a.report.evaluations, b.report.evaluations);
}

TEST(Anderson, WithMemoryOneIsPicard) {
  const Problem problem = causal(2, 5, 4, at::kDouble);
  const StopRule stop = {.max_steps = 30, .rel_tol = 1e-9};
  for (const double mixing : {1.0, 0.6}) {
    for (const Scope scope : {Scope::Sample, Scope::Position, Scope::Causal}) {
      expect_same(solve(problem.f, problem.z0,
                        Anderson{.memory = 1, .mixing = mixing, .scope = scope}, stop),
                  solve(problem.f, problem.z0, Picard{.damping = mixing, .scope = scope}, stop));
    }
  }
}

TEST(Anderson, MixesTheLatestIteratesAsWrittenOut) {
  constexpr int64_t kMemory = 3, kSteps = 12;
  constexpr double kRidge = 1e-3, kMixing = 0.8;
  const Problem problem = affine({1, 9}, at::kDouble, 0.8);
  Tensor z = problem.z0.view(-1);
  std::vector<Tensor> expected, residuals, images;
  for (int64_t step = 0; step < kSteps; ++step) {
    expected.push_back(z);
    const Tensor g = problem.f(z.unsqueeze(0)).view(-1) - z;
    residuals.push_back(g);
    images.push_back(z + kMixing * g);
    if (int64_t(images.size()) > kMemory) {
      residuals.erase(residuals.begin());
      images.erase(images.begin());
    }
    const Tensor G = at::stack(residuals), products = at::matmul(G, G.t());
    const Tensor weighed = products + kRidge * at::diag(at::diag(products));
    const Tensor a = std::get<0>(at::linalg_inv_ex(weighed)).sum(1);
    z = at::matmul((a / a.sum()).unsqueeze(0), at::stack(images)).view(-1);
  }
  std::vector<Tensor> points;
  const Map f = [&](const Tensor& at) { return points.push_back(at.clone()), problem.f(at); };
  solve(f, problem.z0, Anderson{.memory = kMemory, .ridge = kRidge, .mixing = kMixing},
        {.max_steps = kSteps, .rel_tol = 1e-12});
  ASSERT_EQ(points.size(), size_t(kSteps));
  for (size_t i = 0; i < points.size(); ++i)
    EXPECT_LT(largest(points[i].view(-1) - expected[i]), 1e-9) << i;
}

TEST(Anderson, SolvesAffineMapsOfFewerDimensionsThanItsMemoryExactly) {
  for (const int64_t n : {1, 2, 4, 7}) {
    const Problem problem = affine({3, n}, at::kDouble, 0.99);
    const Solution s = solve(problem.f, problem.z0, Anderson{.memory = n + 1, .ridge = 0},
                             {.max_steps = 50, .rel_tol = 1e-9});
    EXPECT_TRUE(s.report.converged());
    EXPECT_LE(s.report.evaluations, n + 2) << n;  // n + 1 residuals are dependent
    EXPECT_LT(relative_error(s.z, problem.solution), 1e-7);
  }
}

TEST(Anderson, ReachesTightTolerancesWithItsRelativeRidge) {
  struct Oracle {
    Problem problem;
    Anderson solver;
    int64_t evaluations;  // that it took when written, and some
  };
  const std::vector<Oracle> oracles = {
      {cosine(), {}, 15},
      {newton_sqrt2(), {}, 12},
      {line(-2, 1), {}, 30},
      {line(1.2, 1), {}, 30},
      {rotation(), {.memory = 16}, 400},
      {diagonal(), {}, 100},
      {affine({3, 6}, at::kDouble), {}, 60},
      {affine({3, 6}, at::kDouble), {.memory = 10}, 60},
      {contraction({3, 20}, at::kDouble), {}, 100},
  };
  for (const Oracle& oracle : oracles) {
    const Solution s = solve(oracle.problem.f, oracle.problem.z0, oracle.solver,
                             {.max_steps = 1000, .rel_tol = 1e-10, .abs_tol = 1e-12});
    SCOPED_TRACE(oracle.problem.name + ": " + describe(s.report));
    EXPECT_TRUE(s.report.converged());
    EXPECT_LE(s.report.evaluations, oracle.evaluations);
    EXPECT_LT(largest(s.z - oracle.problem.solution), 1e-7);
  }
}

TEST(Anderson, DoesNotDependOnTheScaleOfTheState) {
  const Problem problem = affine({2, 3, 8}, at::kDouble, 0.95);
  const StopRule stop = {.max_steps = 200, .rel_tol = 1e-8};
  const Solution plain = solve(problem.f, problem.z0, Anderson{}, stop);
  for (const double scale : {1e-10, 1e10}) {
    const Map scaled = [&](const Tensor& z) { return scale * problem.f(z / scale); };
    const Solution s = solve(scaled, problem.z0, Anderson{}, stop);
    EXPECT_NEAR(double(s.report.evaluations), double(plain.report.evaluations), 2);
    EXPECT_LT(relative_error(s.z / scale, plain.z), 1e-6);
  }
}

TEST(Anderson, NeedsFewerEvaluationsThanPicard) {
  const Problem problem = affine({2, 30}, at::kDouble, 0.98);
  const StopRule stop = {.max_steps = 2000, .rel_tol = 1e-6};
  const auto evaluations = [&](const Solver& solver) {
    const Report report = solve(problem.f, problem.z0, solver, stop).report;
    EXPECT_TRUE(report.converged());
    return report.evaluations;
  };
  EXPECT_LT(evaluations(Anderson{}), evaluations(Picard{}));
}

TEST(Anderson, CausalWithOnePositionIsPosition) {
  const Problem problem = contraction({5, 1, 9}, at::kDouble);
  const StopRule stop = {.max_steps = 60, .rel_tol = 1e-9};
  expect_same(solve(problem.f, problem.z0, Anderson{.scope = Scope::Causal}, stop),
              solve(problem.f, problem.z0, Anderson{.scope = Scope::Position}, stop));
}

TEST(Anderson, CausalWithoutMemoryOfPositionsIsPosition) {
  const Problem problem = causal(2, 6, 9, at::kDouble);
  const StopRule stop = {.max_steps = 60, .rel_tol = 1e-9};
  expect_same(solve(problem.f, problem.z0, Anderson{.scope = Scope::Causal, .decay = 0}, stop),
              solve(problem.f, problem.z0, Anderson{.scope = Scope::Position}, stop));
}

TEST(Anderson, TheLastPositionOfCausalUsesTheCoefficientsOfTheWholeSample) {
  // Until a position stops, decay 1 gives the last one the sample's own Gram matrix.
  const Problem problem = causal(1, 6, 9, at::kDouble);
  const StopRule stop = {.max_steps = 4, .rel_tol = 1e-12};
  const auto last_proposal = [&](const Anderson& solver) {
    std::vector<Tensor> points;
    const Map f = [&](const Tensor& z) { return points.push_back(z.clone()), problem.f(z); };
    solve(f, problem.z0, solver, stop);
    return points;
  };
  const auto causal_points = last_proposal({.scope = Scope::Causal, .decay = 1});
  const auto sample_points = last_proposal({.scope = Scope::Sample});
  // Two Picard steps' worth of points are common; in the third, earlier positions differ.
  EXPECT_TRUE(at::equal(causal_points[1], sample_points[1]));
  EXPECT_TRUE(
      at::allclose(causal_points[2].select(1, 5), sample_points[2].select(1, 5), 1e-10, 1e-12));
  EXPECT_FALSE(
      at::allclose(causal_points[2].select(1, 0), sample_points[2].select(1, 0), 1e-10, 1e-12));
}

}  // namespace
}  // namespace deq
