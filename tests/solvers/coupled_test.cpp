// Rows that depend on each other more than the Layout says: what is reported is true of all of them
// together, whatever the solver and the scope.
#include <gtest/gtest.h>

#include "deq/solvers/anderson.h"
#include "deq/solvers/broyden.h"
#include "deq/solvers/driver.h"
#include "deq/solvers/picard.h"
#include "tests/problems.h"
#include "tests/suites/solver_cases.h"

namespace deq {
namespace {

using at::Tensor;
using namespace testing;

/// What a solve reports holds for the state that it returns; returns it.
Solution honest(const Map& f, const Tensor& z0, const Solver& solver, const StopRule& stop,
                Order order = Order::Forward) {
  Counted counted(f);
  const Solution s = solve(counted.map, z0, solver, stop, order);
  const Tensor found = residual_of(f, s.z, scope_of(solver));
  EXPECT_TRUE(at::allclose(s.report.residual, found, 1e-3, 1e-12))
      << describe(s.report) << "\nreported " << s.report.residual << "\nfound " << found;
  EXPECT_EQ(s.report.evaluations, counted.calls);
  EXPECT_LE(s.report.evaluations, stop.max_steps + 1);
  const Tensor done = s.report.reason.eq(int64_t(Reason::Converged));
  EXPECT_TRUE(found.masked_select(done).le(stop.rel_tol * (1 + 1e-9)).all().item<bool>());
  return s;
}

/// Row r of f(z) takes half of row r + 1; the last one half of itself and one.
Tensor chain(const Tensor& z) {
  const int64_t n = z.size(0);
  Tensor next = at::cat({z.narrow(0, 1, n - 1), z.narrow(0, n - 1, 1)}).mul(0.5);
  next[n - 1] += 1;
  return next;
}

TEST(CoupledRows, AChainReachesTheRowThatNothingMovedAtFirst) {
  for (const Solver& plain : every_solver()) {
    for (const Scope scope : {Scope::Sample, Scope::Position, Scope::Causal, Scope::Whole}) {
      const Solver solver = with_scope(plain, scope);
      if (!has_scope(solver, scope)) continue;
      SCOPED_TRACE(name_of(solver) + std::string(" ") + Names<Scope>::values[size_t(scope)]);
      for (const int64_t rows : {2, 3, 6}) {
        const Tensor z0 = at::zeros({rows, 1}, at::kDouble);
        const Solution s = honest(chain, z0, solver, {.max_steps = 200, .rel_tol = 1e-10});
        EXPECT_TRUE(s.report.converged()) << describe(s.report);
        const Tensor expected = picard_limit(chain, z0);
        EXPECT_NEAR(expected[rows - 2].item<double>(), 1, 1e-12);
        EXPECT_LT(largest(s.z - expected), 1e-8) << s.z;
      }
    }
  }
}

/// The adjoint of the same chain: u_0 = g, u_1 = u_0 / 2, ... where nothing but row 0 has a loss.
TEST(CoupledRows, TheAdjointOfAChainReachesAllOfIt) {
  const Tensor g = at::tensor({1., 0., 0.}, at::kDouble).view({3, 1});
  const Map adjoint = [&](const Tensor& u) {
    return g + at::stack({at::zeros_like(u[0]), 0.5 * u[0], 0.5 * u[1]});
  };
  for (const Solver& solver : every_solver()) {
    const Solution s =
        honest(adjoint, g, solver, {.max_steps = 60, .rel_tol = 1e-10}, Order::Backward);
    EXPECT_TRUE(s.report.converged()) << describe(s.report);
    EXPECT_LT(largest(s.z.view(-1) - at::tensor({1., 0.5, 0.25}, at::kDouble)), 1e-9) << s.z;
  }
}

/// Nodes as rows (N, D): each takes the mean of its neighbours, through weights; only one is fed.
Map graph(int64_t nodes, int64_t features, at::ScalarType type) {
  Tensor links = randn({nodes, nodes}, at::kDouble, 21).gt(1).to(at::kDouble) +
                 at::eye(nodes, at::kDouble) + at::eye(nodes, at::kDouble).roll(1, 0);
  links = (links / links.sum(1, true)).to(type);
  Tensor w = randn({features, features}, at::kDouble, 22);
  w = (0.9 * w / at::linalg_matrix_norm(w, 2)).to(type);
  Tensor x = randn({nodes, features}, type, 23);
  x.narrow(0, 1, nodes - 1).mul_(1e-3);
  return [=](const Tensor& z) { return at::tanh(at::matmul(at::matmul(links, z), w) + x); };
}

TEST(CoupledRows, NodesOfAGraphConvergeTogether) {
  const Map f = graph(40, 8, at::kDouble);
  const Tensor z0 = at::zeros({40, 8}, at::kDouble), expected = picard_limit(f, z0);
  for (const Solver& plain : every_solver()) {
    for (const Scope scope : {Scope::Sample, Scope::Whole}) {
      const Solution s =
          honest(f, z0, with_scope(plain, scope), {.max_steps = 100, .rel_tol = 1e-6});
      // Coefficients of each row's own solve nothing here: what mixes may not converge, and says
      // so.
      const bool must = scope == Scope::Whole || name_of(plain) == "picard";
      EXPECT_TRUE(s.report.converged() || !must) << name_of(plain) << ": " << describe(s.report);
      EXPECT_TRUE(!s.report.converged() || relative_error(s.z, expected) < 1e-4);
    }
  }
}

/// Attention of each position over all of a sample's, in states (T, B, D).
Map attention(int64_t positions, int64_t batch, int64_t features, double size) {
  const auto weight = [&](uint64_t seed) {
    const Tensor w = randn({features, features}, at::kDouble, seed);
    return size * w / at::linalg_matrix_norm(w, 2);
  };
  const Tensor q = 2 * weight(31), k = 2 * weight(32), v = weight(33),
               x = randn({positions, batch, features}, at::kDouble, 34);
  return [=](const Tensor& z) {
    const Tensor rows = z.transpose(0, 1);  // (B, T, D)
    const Tensor scores = at::matmul(at::matmul(rows, q), at::matmul(rows, k).transpose(1, 2));
    const Tensor read = at::matmul(at::softmax(scores, 2), at::matmul(rows, v));
    return at::tanh(read + x.transpose(0, 1)).transpose(0, 1).contiguous();
  };
}

TEST(CoupledRows, PositionsInTheFirstDimensionConvergeTogetherOrSayThatTheyDidNot) {
  const Map f = attention(12, 3, 8, 0.6);
  const Tensor z0 = at::zeros({12, 3, 8}, at::kDouble), expected = picard_limit(f, z0);
  for (const Solver& plain : every_solver()) {
    for (const Scope scope : {Scope::Sample, Scope::Position, Scope::Causal, Scope::Whole}) {
      const Solver solver = with_scope(plain, scope);
      if (!has_scope(solver, scope)) continue;
      SCOPED_TRACE(name_of(solver) + std::string(" ") + Names<Scope>::values[size_t(scope)]);
      const Solution s = honest(f, z0, solver, {.max_steps = 100, .rel_tol = 1e-5});
      EXPECT_TRUE(s.report.converged() || scope != Scope::Whole) << describe(s.report);
      EXPECT_TRUE(!s.report.converged() || relative_error(s.z, expected) < 1e-3);
    }
  }
}

TEST(CoupledRows, AMapThatIsNotCausalIsSolvedByPositionOrNotCalledConverged) {
  const Map later = [](const Tensor& z) {  // position t reads t + 1
    return 0.6 * softsign(z.roll(1, 2)) + 0.8 * softsign(z.roll(-1, 1)) + 0.1;
  };
  const Tensor x = randn({2, 4, 6, 6}, at::kDouble, 35);
  const Map grid = [=](const Tensor& z) {  // (B, C, H, W), channels are no positions
    return 0.2 * (z.roll(1, 1) + z.roll(1, 2) + z.roll(-1, 3) + z.roll(-1, 1)) + x;
  };
  const Tensor starts[] = {at::zeros({2, 9, 5}, at::kDouble), at::zeros_like(x)};
  const Map* maps[] = {&later, &grid};
  for (size_t i = 0; i < 2; ++i) {
    for (const Solver& plain : every_solver()) {
      for (const Scope scope : {Scope::Position, Scope::Causal, Scope::Whole}) {
        const Solver solver = with_scope(plain, scope);
        if (!has_scope(solver, scope)) continue;
        const Solution s = honest(*maps[i], starts[i], solver, {.max_steps = 100, .rel_tol = 1e-6});
        const Tensor expected = picard_limit(*maps[i], starts[i]);
        EXPECT_TRUE(!s.report.converged() || relative_error(s.z, expected) < 1e-4)
            << name_of(plain) << " " << describe(s.report);
        EXPECT_TRUE(scope != Scope::Whole || s.report.converged());
      }
    }
  }
}

TEST(CoupledRows, ARowThatIsWokenAgainAndAgainHasNotConverged) {
  // Row 0 is at rest at any time that row 1 is, which never is.
  const Map f = [](const Tensor& z) {
    return at::stack({0.5 * z[0] + z[1].remainder(2) * 0.01 + 1, z[1] + 1});
  };
  const Solution s =
      honest(f, at::zeros({2, 1}, at::kDouble), Picard{}, {.max_steps = 60, .rel_tol = 1e-3});
  EXPECT_EQ(s.report.count(Reason::Converged), 0) << describe(s.report);
  EXPECT_EQ(s.report.steps[0].item<int64_t>(), 60);
}

TEST(CoupledRows, WhatRowsDependOnIsJudgedBesideTheBestOfThoseThatWereGivenUp) {
  // Row 1 grows until it fails, and goes back to where it started; row 0 follows it there.
  const Map f = [](const Tensor& z) {
    const Tensor grown = 3 * z[1] + 1;
    return at::stack({0.1 * z[0] + 1 / (1 + z[1]),
                      grown.masked_fill(grown.gt(1e3), std::numeric_limits<double>::quiet_NaN())});
  };
  const Solution s =
      honest(f, at::zeros({2, 1}, at::kDouble), Picard{}, {.max_steps = 100, .rel_tol = 1e-8});
  EXPECT_EQ(s.report.reason[0].item<int64_t>(), int64_t(Reason::Converged));
  EXPECT_EQ(s.report.reason[1].item<int64_t>(), int64_t(Reason::NonFinite));
  EXPECT_NEAR((s.z[0] * 0.9 * (1 + s.z[1])).item<double>(), 1, 1e-7);
}

TEST(CoupledRows, ATransposedStateIsToldWhatIsDoneOnlyWhereItIs) {
  // A series is told of positions as done that stay where they are, and of none that were woken.
  Tensor before;
  const auto f = [](const Tensor& z) {  // position t reads t + 1, against the order
    return 0.5 * at::cat({z.narrow(1, 1, 3), at::ones_like(z.narrow(1, 0, 1))}, 1);
  };
  bool shrank = false;
  int64_t last = 0;
  const Map map(f, [&]() -> Map::Series {
    return [&](const Tensor& z, const std::vector<int64_t>& done) {
      shrank = shrank || done[0] < last;
      last = done[0];
      if (done[0] > 0) {
        EXPECT_TRUE(at::equal(z.narrow(1, 0, done[0]), before.narrow(1, 0, done[0])));
      }
      before = z.clone();
      return f(z);
    };
  });
  const Tensor z0 = at::zeros({1, 4, 1}, at::kDouble);
  const Solution s = solve(map, z0, Picard{.scope = Scope::Position}, {.max_steps = 40});
  EXPECT_TRUE(shrank);
  EXPECT_TRUE(s.report.converged());
  EXPECT_LT(largest(s.z.view(-1) - at::tensor({0.0625, 0.125, 0.25, 0.5}, at::kDouble)), 1e-3);
}

}  // namespace
}  // namespace deq
