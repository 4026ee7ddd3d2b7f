// Rows that come and go, each against the solve of it alone: the same bits.
#include "deq/solvers/rolling.h"

#include <gtest/gtest.h>

#include "deq/solvers/anderson.h"
#include "deq/solvers/broyden.h"
#include "deq/solvers/picard.h"
#include "tests/base/scratch.h"
#include "tests/problems.h"

namespace deq {
namespace {

using at::Tensor;
using namespace testing;

constexpr int64_t kWidth = 13;

/// f of one problem: z (1, 1, n) -> the same. Problems differ in how fast they converge.
struct Row {
  Tensor x;
  double slope = 0.8;
  Tensor operator()(const Tensor& z) const { return slope * softsign(z.roll(1, -1)) + x; }
};

std::vector<Row> some_rows(int64_t count, at::ScalarType type) {
  std::vector<Row> rows;
  for (int64_t i = 0; i < count; ++i)
    rows.push_back({randn({1, 1, kWidth}, type, uint64_t(100 + i)), 0.3 + 0.05 * double(i % 14)});
  return rows;
}

struct Result {
  Tensor z;
  RollingSolve::Ended how;
};

/// Solves all problems in `places` rows: whatever ends makes room for the next one.
std::vector<Result> roll(const std::vector<Row>& problems, int64_t places, const Solver& solver,
                         const StopRule& stop, int64_t* rounds = nullptr) {
  std::vector<int64_t> at(size_t(places), -1);  // the problem in each row
  const auto type = problems.front().x.scalar_type();
  const Map::Series f = [&](const Tensor& z, const std::vector<int64_t>& done) {
    Tensor fz = at::full_like(z, NAN);
    for (int64_t r = 0; r < places; ++r) {
      if (done[size_t(r)] == 0) fz[r].copy_(problems[size_t(at[size_t(r)])](z.narrow(0, r, 1))[0]);
    }
    return fz;
  };
  RollingSolve solve(f, at::zeros({places, kWidth}, type), solver, stop);
  std::vector<Result> found(problems.size());
  size_t next = 0;
  const auto begin = [&](int64_t row) {
    if (next == problems.size()) return;
    at[size_t(row)] = int64_t(next++);
    solve.begin(row, at::zeros({kWidth}, type));
  };
  for (int64_t r = 0; r < places; ++r) begin(r);
  while (solve.in_use()) {
    if (rounds) ++*rounds;
    const RollingSolve::Round round = solve.step();
    for (size_t i = 0; i < round.ended.size(); ++i) {
      const RollingSolve::Ended& ended = round.ended[i];
      found[size_t(at[size_t(ended.row)])] = {round.states[int64_t(i)].clone(), ended};
      begin(ended.row);
    }
  }
  return found;
}

std::vector<Solver> solvers() {
  return {Anderson{},
          Anderson{.memory = 3},
          Anderson{.mixing = 0.7, .scope = Scope::Causal},
          Anderson{.scope = Scope::Position},
          Anderson{.scope = Scope::Whole},
          Broyden{},
          Broyden{.memory = 3},
          Broyden{.memory = 4, .line_search = true},
          Picard{},
          Picard{.damping = 0.6}};
}

TEST(RollingSolve, ARowIsSolvedAsAlone) {
  const StopRule stop{.max_steps = 40, .rel_tol = 1e-5};
  for (const at::ScalarType type : {at::kFloat, at::kDouble}) {
    const std::vector<Row> problems = some_rows(23, type);
    for (const Solver& solver : solvers()) {
      for (const int64_t places : {1, 3, 8}) {
        SCOPED_TRACE(std::string(solver.name()) + fmt::format(", {} rows", places));
        const std::vector<Result> found = roll(problems, places, solver, stop);
        for (size_t i = 0; i < problems.size(); ++i) {
          const Solution alone = solve(problems[i], at::zeros({1, 1, kWidth}, type), solver, stop);
          EXPECT_TRUE(at::equal(found[i].z, alone.z.view({-1}))) << "problem " << i;
          EXPECT_EQ(found[i].how.evaluations, alone.report.evaluations);
          EXPECT_EQ(found[i].how.residual, alone.report.worst_residual());
          EXPECT_EQ(found[i].how.reason == Reason::Converged, alone.report.converged());
        }
      }
    }
  }
}

TEST(RollingSolve, WhatDoesNotConvergeHoldsNothingElse) {
  std::vector<Row> problems = some_rows(21, at::kDouble);
  problems[0].slope = 1e3;  // softsign oscillates
  const StopRule stop{.max_steps = 60, .rel_tol = 1e-8};
  int64_t rounds = 0, alone_together = 0;
  const Solver picard = Picard{};
  const std::vector<Result> found = roll(problems, 4, picard, stop, &rounds);
  EXPECT_EQ(found[0].how.reason, Reason::MaxSteps);
  EXPECT_EQ(found[0].how.evaluations, 60);
  for (size_t i = 1; i < problems.size(); ++i) {
    EXPECT_EQ(found[i].how.reason, Reason::Converged);
    alone_together += found[i].how.evaluations;
  }
  EXPECT_LE(rounds, std::max<int64_t>(60, alone_together / 3 + 60));
}

TEST(RollingSolve, GivesUpRowsAsASolveDoesAndUsesTheirPlacesAgain) {
  std::vector<Row> problems = some_rows(12, at::kDouble);
  problems[1].x[0][0][3] = NAN;
  problems[4].x[0][0][0] = INFINITY;
  problems[6].x.mul_(1e300);
  const StopRule stop{.max_steps = 30, .rel_tol = 1e-9};
  for (const Solver& solver : solvers()) {
    SCOPED_TRACE(std::string(solver.name()));
    const std::vector<Result> found = roll(problems, 2, solver, stop);
    for (size_t i = 0; i < problems.size(); ++i) {
      const Solution alone =
          solve(problems[i], at::zeros({1, 1, kWidth}, at::kDouble), solver, stop);
      EXPECT_TRUE(at::equal(found[i].z, alone.z.view({-1}))) << "problem " << i;
      EXPECT_EQ(found[i].how.residual, alone.report.worst_residual());
      EXPECT_EQ(int64_t(found[i].how.reason), alone.report.reason[0].item<int64_t>());
    }
  }
}

/// Not finite beyond 3.2, where the second step lands: it is put back, with a shorter step.
TEST(RollingSolve, PutsARowBackWhereItWasFiniteAsASolveDoes) {
  const auto f = [](const Tensor& z) {
    const Tensor next = 3.5 * softsign(z) + 1;
    return at::where(next > 3.2, at::full_like(next, NAN), next);
  };
  const Solver solver = Picard{};
  const StopRule stop{.max_steps = 30, .rel_tol = 1e-9};
  const Tensor z0 = at::zeros({1, 1, kWidth}, at::kDouble);
  const Solution alone = solve(f, z0, solver, stop);
  ASSERT_GT(alone.report.count(Reason::NonFinite), 0) << describe(alone.report);
  ASSERT_GT(alone.report.evaluations, kStepsBack) << describe(alone.report);
  RollingSolve rolling([&](const Tensor& z, const std::vector<int64_t>&) { return f(z); },
                       z0.view({1, kWidth}), solver, stop);
  for (int again = 0; again < 3; ++again) {
    rolling.begin(0, z0);
    RollingSolve::Round round;
    while (rolling.in_use()) round = rolling.step();
    ASSERT_EQ(round.ended.size(), 1u);
    EXPECT_EQ(int64_t(round.ended[0].reason), alone.report.reason[0].item<int64_t>());
    EXPECT_EQ(round.ended[0].evaluations, alone.report.evaluations);
    EXPECT_TRUE(at::equal(round.states.view({-1}), alone.z.view({-1})));
  }
}

TEST(RollingSolve, RefusesWhatItCannotDo) {
  const Map::Series f = [](const Tensor& z, const std::vector<int64_t>&) { return z * 0.5; };
  const Tensor like = at::zeros({2, kWidth});
  RollingSolve solve(f, like, {}, {});
  EXPECT_SAYS(error_of([&] { solve.step(); }), "no row is in use");
  solve.begin(1, at::ones({kWidth}));
  EXPECT_SAYS(error_of([&] { solve.begin(1, at::ones({kWidth})); }), "row 1 begins");
  EXPECT_SAYS(error_of([&] { solve.begin(2, at::ones({kWidth})); }), "row 2 begins");
  EXPECT_SAYS(error_of([&] { solve.begin(0, at::ones({3})); }), "expected 13 numbers");
  EXPECT_SAYS(error_of([&] { RollingSolve(f, at::zeros({2}), {}, {}); }), "expected (rows, n)");
  EXPECT_SAYS(error_of([&] { RollingSolve(f, like, {}, {.max_steps = 0}); }), "max_steps = 0");
}

}  // namespace
}  // namespace deq
