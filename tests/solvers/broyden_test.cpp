#include "deq/solvers/broyden.h"

#include <gtest/gtest.h>

#include "tests/problems.h"

namespace deq {
namespace {

using at::Tensor;
using namespace testing;

/// The points at which a solve evaluates f.
std::vector<Tensor> points_of(const Problem& problem, const Broyden& solver, int64_t max_steps) {
  std::vector<Tensor> points;
  const Map f = [&](const Tensor& z) { return points.push_back(z.clone()), problem.f(z); };
  solve(f, problem.z0, solver, {.max_steps = max_steps, .rel_tol = 1e-14});
  return points;
}

/// The textbook's inverse from -I and the newest `memory` pairs, for one row:
/// H <- H + (s - H y) s^T H / (s^T H y).
Tensor dense_inverse(const std::vector<Tensor>& s, const std::vector<Tensor>& y, int64_t memory) {
  const int64_t n = s.at(0).numel(), count = int64_t(s.size());
  Tensor H = -at::eye(n, at::kDouble);
  for (int64_t i = std::max<int64_t>(0, count - memory); i < count; ++i) {
    const Tensor Hy = H.mv(y[size_t(i)]), sH = H.t().mv(s[size_t(i)]);
    H = H + at::outer(s[size_t(i)] - Hy, sH) / s[size_t(i)].dot(Hy);
  }
  return H;
}

void expect_steps_of_dense_broyden(int64_t memory) {
  const Problem problem = contraction({3, 12}, at::kDouble);
  const auto points = points_of(problem, {.memory = memory}, 12);
  ASSERT_EQ(points.size(), 12u);
  for (int64_t r = 0; r < 3; ++r) {
    std::vector<Tensor> s, y;
    for (size_t k = 0; k + 1 < points.size(); ++k) {
      const auto g = [&](size_t i) { return (problem.f(points[i]) - points[i])[r]; };
      const Tensor H = k == 0 ? -at::eye(12, at::kDouble) : dense_inverse(s, y, memory);
      if (k > 0) {
        EXPECT_LT(relative_error(H.mv(y.back()), s.back()), 1e-9) << "the secant equation";
      }
      const Tensor expected = points[k][r] - H.mv(g(k));
      EXPECT_LT(largest(points[k + 1][r] - expected), 1e-9) << "memory " << memory << " step " << k;
      s.push_back((points[k + 1] - points[k])[r]);
      y.push_back(g(k + 1) - g(k));
    }
  }
}

TEST(Broyden, WithEnoughMemoryIsTheTextbooksInverse) { expect_steps_of_dense_broyden(20); }

TEST(Broyden, WithLittleMemoryIsTheInverseOfTheNewestPairs) {
  for (const int64_t memory : {1, 2, 4}) expect_steps_of_dense_broyden(memory);
}

TEST(Broyden, TheFirstStepIsPicards) {
  const Problem problem = contraction({3, 12}, at::kDouble);
  const auto points = points_of(problem, {}, 2);
  EXPECT_TRUE(at::equal(points[0], problem.z0));
  EXPECT_TRUE(at::equal(points[1], problem.f(problem.z0)));
}

TEST(Broyden, SolvesTheOracles) {
  struct Oracle {
    Problem problem;
    int64_t evaluations;
  };
  const std::vector<Oracle> oracles = {
      {line(-2, 1), 3},    {line(1.2, 1), 3}, {cosine(), 9},
      {newton_sqrt2(), 9}, {rotation(), 60},  {affine({3, 6}, at::kDouble), 30},
  };
  for (const Oracle& oracle : oracles) {
    const Solution s = solve(oracle.problem.f, oracle.problem.z0, Broyden{.memory = 40},
                             {.max_steps = 200, .rel_tol = 1e-12});
    SCOPED_TRACE(oracle.problem.name + ": " + describe(s.report));
    EXPECT_TRUE(s.report.converged());
    EXPECT_LE(s.report.evaluations, oracle.evaluations);
    EXPECT_LT(largest(s.z - oracle.problem.solution), 1e-9);
  }
}

TEST(Broyden, SolvesTheDiagonalThatPicardNeeds3000StepsFor) {
  const Solution s = solve(diagonal().f, diagonal().z0, Broyden{},
                           {.max_steps = 40, .rel_tol = 0, .abs_tol = 1e-7});
  EXPECT_TRUE(s.report.converged()) << describe(s.report);
  EXPECT_LE(s.report.evaluations, 9);
}

TEST(Broyden, ConvergesWithLittleMemory) {
  const Problem problem = affine({2, 40}, at::kDouble, 0.9);
  for (const int64_t memory : {1, 3, 8}) {
    const Solution s = solve(problem.f, problem.z0, Broyden{.memory = memory},
                             {.max_steps = 300, .rel_tol = 1e-9});
    EXPECT_TRUE(s.report.converged()) << memory << ": " << describe(s.report);
    EXPECT_LT(relative_error(s.z, problem.solution), 1e-7);
  }
}

TEST(Broyden, GoesOnWherePairsAreDependent) {
  // A constant residual: y = 0 in every pair.
  const Solution shift =
      solve([](const Tensor& z) { return z + 1; }, at::zeros({1, 3}), Broyden{}, {.max_steps = 50});
  EXPECT_TRUE(shift.z.isfinite().all().item<bool>());
  // One dimension and far more pairs than that.
  const Solution s = solve(cosine().f, cosine().z0, Broyden{}, {.max_steps = 60, .rel_tol = 0});
  EXPECT_LT(largest(s.z - cosine().solution), 1e-15);
}

TEST(Broyden, APairInWhichARowDidNotMoveIsNoneForThatRow) {
  // Position 1 rests at first: only once position 0 has moved does it have a residual, and a slope
  // of -2, with which plain iteration diverges.
  const Map f = [](const Tensor& z) {
    const Tensor first = -0.5 * z.select(1, 0) + 1;
    return at::stack({first, -2 * z.select(1, 1) + z.select(1, 0)}, 1);
  };
  const Solution s = solve(f, at::zeros({1, 2, 1}, at::kDouble), Broyden{.scope = Scope::Position},
                           {.max_steps = 30, .rel_tol = 1e-10});
  EXPECT_TRUE(s.report.converged()) << describe(s.report);
  EXPECT_NEAR(s.z.view(-1)[1].item<double>(), 2. / 9, 1e-9);
}

/// Drives the method by hand; returns |f(z) - z| of every accepted iterate, one row.
std::vector<double> merits(const Map& f, Tensor z, bool line_search, int steps,
                           int64_t* evaluated) {
  const Layout layout(z, Scope::Sample, Order::Forward);
  const Propose propose = Broyden{.line_search = line_search}.start(layout);
  const std::function<Tensor(const Tensor&)> evaluate = [&](const Tensor& at) {
    return ++*evaluated, f(at);
  };
  const std::function<Tensor()> active = [&] { return at::ones({z.size(0)}, at::kBool); };
  TensorPool pool;
  std::vector<double> found;
  for (int k = 0; k < steps; ++k) {
    const Tensor fz = f(z), g = fz - z;
    found.push_back(g.norm().item<double>());
    const std::vector<char> resting(size_t(z.size(0)), 0);
    const Proposal next = propose({z, fz, g, resting, resting, active, evaluate, pool});
    EXPECT_EQ(next.fz.defined(), line_search);
    EXPECT_TRUE(!line_search || at::equal(next.fz, f(next.z)));
    z = next.z;
  }
  return found;
}

TEST(Broyden, TheLineSearchKeepsTheResidualFromGrowing) {
  // Newton's classic: the full steps of arctan from here leave its basin.
  const Map f = [](const Tensor& z) { return z - 6 * at::atan(z); };
  int64_t none = 0, trials = 0;
  const Tensor z0 = row({3.0});
  const auto without = merits(f, z0, false, 12, &none);
  const auto with = merits(f, z0, true, 12, &trials);
  EXPECT_EQ(none, 0);
  EXPECT_GT(trials, 12);
  double growth = 0;
  for (size_t k = 1; k < with.size(); ++k)
    growth = std::max(growth, with[k] / (with[k - 1] + 1e-12));
  EXPECT_LE(growth, 1.01);
  EXPECT_GT(*std::max_element(without.begin(), without.end()), 1.05 * without[0]);
}

TEST(Broyden, TrialsOfTheLineSearchAreCountedAndNotRepeated) {
  Counted counted([](const Tensor& z) { return z - 6 * at::atan(z); });
  const Solution s = solve(counted.map, row({3.0}), Broyden{.line_search = true},
                           {.max_steps = 30, .rel_tol = 0, .abs_tol = 1e-10});
  EXPECT_TRUE(s.report.converged()) << describe(s.report);
  EXPECT_EQ(s.report.evaluations, counted.calls);
  // Where every full step is accepted, the trial is the evaluation.
  const Problem easy = contraction({2, 6}, at::kDouble);
  const StopRule stop = {.max_steps = 60, .rel_tol = 1e-9};
  const Solution searched = solve(easy.f, easy.z0, Broyden{.line_search = true}, stop);
  const Solution plain = solve(easy.f, easy.z0, Broyden{}, stop);
  EXPECT_TRUE(at::equal(searched.z, plain.z));
  EXPECT_EQ(searched.report.evaluations, plain.report.evaluations);
}

TEST(Broyden, TheLineSearchDoesNotTryForRowsThatAreDone) {
  const Problem easy = contraction({1, 6}, at::kDouble);
  const StopRule stop = {.max_steps = 60, .rel_tol = 1e-9};
  const Broyden searching = {.line_search = true};
  const int64_t alone = solve(easy.f, easy.z0, searching, stop).report.evaluations;
  // A second row that is not finite, so that no trial of it would ever be accepted.
  const Map f = [&](const Tensor& z) {
    return at::cat({easy.f(z.narrow(0, 0, 1)), at::full({1, 6}, NAN, at::kDouble)});
  };
  const Solution s = solve(f, at::zeros({2, 6}, at::kDouble), searching, stop);
  EXPECT_EQ(s.report.evaluations, alone);
  EXPECT_EQ(s.report.count(Reason::NonFinite), 1);
}

}  // namespace
}  // namespace deq
