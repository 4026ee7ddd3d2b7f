// What every solver owes, in every scope that it has: the fixed point, and a report that is true.
#include <gtest/gtest.h>

#include "deq/solvers/anderson.h"
#include "deq/solvers/broyden.h"
#include "deq/solvers/picard.h"
#include "tests/base/scratch.h"
#include "tests/problems.h"
#include "tests/suites/solver_cases.h"

namespace deq {
namespace {

using at::Tensor;
using namespace testing;

class SolverSuite : public ::testing::TestWithParam<SolverCase> {
 protected:
  Solution solve(const Map& f, const Tensor& z0, const StopRule& stop) const {
    return deq::solve(f, z0, GetParam().solver, stop);
  }
};
INSTANTIATE_TEST_SUITE_P(All, SolverSuite, ::testing::ValuesIn(solver_cases()), PrintName());

TEST_P(SolverSuite, ReachesTheFixedPointOfStatesOfAnyRank) {
  const SolverCase& c = GetParam();
  std::vector<Problem> problems = {affine({3, 4, 6}, c.type), causal(3, 7, 5, c.type)};
  for (const std::vector<int64_t>& sizes :
       {std::vector<int64_t>{7}, {3, 7}, {2, 4, 7}, {2, 3, 2, 7}, {1, 1, 1}}) {
    problems.push_back(contraction(sizes, c.type));
  }
  for (const Problem& problem : problems) {
    const Solution s = solve(problem.f, problem.z0, c.tight());
    SCOPED_TRACE(fmt::format("{} [{}]: {}", problem.name, fmt::join(problem.z0.sizes(), ", "),
                             describe(s.report)));
    EXPECT_TRUE(s.report.converged());
    EXPECT_EQ(s.z.sizes(), problem.z0.sizes());
    EXPECT_EQ(s.z.scalar_type(), c.type);
    EXPECT_LT(relative_error(s.z, problem.solution), c.error());
    EXPECT_LE(s.report.worst_residual(), c.tight().rel_tol * (1 + 1e-6));
  }
}

TEST_P(SolverSuite, FloatsWithoutAShapeAreOneRow) {
  const Tensor half = at::full({}, 0.5, GetParam().type);
  const Solution s = solve([&](const Tensor& z) { return half * z + 1; }, at::zeros_like(half),
                           GetParam().tight());
  EXPECT_EQ(s.z.dim(), 0);
  EXPECT_NEAR(s.z.item<double>(), 2, 1e-4);
  EXPECT_EQ(s.report.reason.numel(), 1);
}

TEST_P(SolverSuite, TheReportedResidualIsThatOfTheReturnedState) {
  const SolverCase& c = GetParam();
  const Problem slow = causal(3, 9, 5, c.type);
  const Map repelling = [](const Tensor& z) { return 1 + z + z * z; };  // no real fixed point
  for (const int64_t max_steps : {1, 2, 3, 5, 8, 200}) {
    for (const Map& f : {slow.f, repelling}) {
      StopRule stop = c.tight();
      stop.max_steps = max_steps;
      const Solution s = solve(f, slow.z0, stop);
      const Tensor expected = residual_of(f, s.z, c.scope);
      EXPECT_TRUE(at::allclose(s.report.residual, expected, c.is_double() ? 1e-9 : 1e-3,
                               c.is_double() ? 1e-14 : 1e-6))
          << describe(s.report) << "\nreported " << s.report.residual << "\nfound " << expected;
    }
  }
}

TEST_P(SolverSuite, EveryCallIsCounted) {
  const SolverCase& c = GetParam();
  for (const int64_t max_steps : {1, 2, 7, 300}) {
    Counted counted(causal(3, 9, 5, c.type).f);
    StopRule stop = c.tight();
    stop.max_steps = max_steps;
    const Solution s = solve(counted.map, at::zeros({3, 9, 5}, c.type), stop);
    EXPECT_EQ(s.report.evaluations, counted.calls);
    EXPECT_EQ(s.report.max_steps, max_steps);
  }
}

TEST_P(SolverSuite, TheReportHasOneEntryForEveryRow) {
  const SolverCase& c = GetParam();
  const Problem problem = causal(3, 9, 5, c.type);
  StopRule stop = c.tight();
  stop.max_steps = 6;
  const Report r = solve(problem.f, problem.z0, stop).report;
  const int64_t rows = c.scope == Scope::Whole ? 1 : c.scope == Scope::Sample ? 3 : 27;
  EXPECT_EQ(r.reason.sizes(), (at::IntArrayRef{rows}));
  EXPECT_EQ(r.residual.sizes(), (at::IntArrayRef{rows}));
  EXPECT_EQ(r.steps.sizes(), (at::IntArrayRef{rows}));
  EXPECT_EQ(r.trace.sizes(), (at::IntArrayRef{6, rows}));
  EXPECT_EQ(r.reason.scalar_type(), at::kByte);
  EXPECT_EQ(r.residual.scalar_type(), at::kDouble);
  EXPECT_EQ(r.steps.scalar_type(), at::kLong);
  EXPECT_EQ(r.trace.scalar_type(), at::kDouble);
  EXPECT_EQ(r.count(Reason::MaxSteps), rows);
  EXPECT_FALSE(r.converged());
  EXPECT_EQ(r.converged_share(), 0);
}

TEST_P(SolverSuite, OneStepOnlyMeasures) {
  const Problem problem = contraction({2, 3, 5}, GetParam().type);
  const Tensor z0 = randn({2, 3, 5}, GetParam().type, 9);
  const Solution s = solve(problem.f, z0, {.max_steps = 1});
  EXPECT_TRUE(at::equal(s.z, z0));
  EXPECT_EQ(s.report.evaluations, 1);
  EXPECT_FALSE(s.report.converged());
}

TEST_P(SolverSuite, AStartThatIsTheSolutionIsReturned) {
  const SolverCase& c = GetParam();
  const Problem problem = contraction({2, 3, 5}, c.type);
  Tensor z0 = problem.solution.clone();
  const Solution s = solve(problem.f, z0, c.tight());
  EXPECT_TRUE(s.report.converged());
  EXPECT_EQ(s.report.evaluations, 1);
  EXPECT_TRUE(s.report.steps.eq(1).all().item<bool>());
  EXPECT_TRUE(at::equal(s.z, z0));
  z0.fill_(7);  // the result is the caller's own
  EXPECT_TRUE(at::equal(s.z, problem.solution));
}

TEST_P(SolverSuite, ZeroAtZeroIsConverged) {
  const Map f = [](const Tensor& z) { return 0.5 * z; };
  const Solution s = solve(f, at::zeros({2, 3, 4}, GetParam().type), {.rel_tol = 0});
  EXPECT_TRUE(s.report.converged());
  EXPECT_EQ(s.report.worst_residual(), 0);
}

TEST_P(SolverSuite, StatesWithoutRowsOrFeaturesNeedNoEvaluation) {
  const std::vector<std::vector<int64_t>> empty = {{0}, {0, 4}, {0, 3, 4}, {2, 0, 4}, {2, 3, 0}};
  for (const auto& sizes : empty) {
    Counted counted([](const Tensor& z) { return 0.5 * z + 1; });
    const Solution s = solve(counted.map, at::zeros(sizes, GetParam().type), {});
    EXPECT_EQ(s.z.sizes(), at::IntArrayRef(sizes));
    EXPECT_TRUE(s.report.converged()) << describe(s.report);
    EXPECT_LE(s.report.evaluations, 1);
    EXPECT_EQ(s.report.evaluations, counted.calls);
    EXPECT_EQ(s.report.worst_residual(), 0);
    EXPECT_EQ(s.report.mean_residual(), 0);
  }
}

TEST_P(SolverSuite, StridesOfTheStartDoNotMatter) {
  const SolverCase& c = GetParam();
  const Problem problem = causal(3, 5, 4, c.type);
  const Tensor z0 = randn({4, 5, 3}, c.type, 10).permute({2, 1, 0});
  ASSERT_FALSE(z0.is_contiguous());
  const Solution strided = solve(problem.f, z0, c.tight());
  const Solution plain = solve(problem.f, z0.contiguous(), c.tight());
  EXPECT_TRUE(at::equal(strided.z, plain.z));
  const Map transposing = [&](const Tensor& z) {
    return problem.f(z).transpose(0, 1).contiguous().transpose(0, 1);
  };
  EXPECT_TRUE(at::equal(solve(transposing, z0, c.tight()).z, plain.z));
}

TEST_P(SolverSuite, NothingIsTaped) {
  const Tensor w = at::ones({4}, GetParam().type).requires_grad_(true);
  const Tensor z0 = at::zeros({2, 4}, GetParam().type).requires_grad_(true);
  bool taped = false;
  const Solution s = solve(
      [&](const Tensor& z) {
        const Tensor fz = 0.5 * z + w;
        taped = taped || fz.requires_grad();
        return fz;
      },
      z0, {});
  EXPECT_FALSE(taped);
  EXPECT_FALSE(s.z.requires_grad());
  EXPECT_TRUE(at::GradMode::is_enabled());
}

TEST_P(SolverSuite, AMapOfAnotherShapeOrTypeIsAnError) {
  const Tensor z0 = at::zeros({2, 3, 4}, GetParam().type);
  const auto message = [&](const Map& f) { return error_of([&] { solve(f, z0, {}); }); };
  EXPECT_SAYS(message([](const Tensor& z) { return z.sum(2); }), "[2, 3, 4] to [2, 3]");
  EXPECT_SAYS(message([](const Tensor& z) { return z.view({3, 2, 4}); }), "[3, 2, 4]");
  EXPECT_SAYS(message([](const Tensor& z) { return z.to(at::kHalf); }), "to Half");
  EXPECT_SAYS(message([](const Tensor&) { return Tensor(); }), "undefined");
  EXPECT_SAYS(
      error_of([&] { solve([](const Tensor& z) { return z; }, at::zeros({2}, at::kLong), {}); }),
      "Long");
  EXPECT_SAYS(error_of([&] { solve([](const Tensor& z) { return z; }, Tensor(), {}); }),
              "undefined");
}

TEST_P(SolverSuite, WithoutAFixedPointItSaysSo) {
  const SolverCase& c = GetParam();
  for (const Map& f : {Map([](const Tensor& z) { return z + 1; }),
                       Map([](const Tensor& z) { return 1 + z + z * z; }),
                       Map([](const Tensor& z) { return z.exp(); })}) {
    const Solution s = solve(f, at::zeros({2, 3, 4}, c.type), {.max_steps = 60, .rel_tol = 1e-6});
    EXPECT_EQ(s.report.count(Reason::Converged), 0) << describe(s.report);
    EXPECT_TRUE(s.z.isfinite().all().item<bool>()) << "the best iterate is finite";
  }
}

}  // namespace
}  // namespace deq
