// One solve at several limits against a solve of its own for each of them.
#include "deq/solvers/limits.h"

#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include "deq/cells/cells.h"
#include "deq/cells/shift.h"
#include "deq/cells/transformer.h"
#include "deq/solvers/anderson.h"
#include "deq/solvers/picard.h"
#include "deq/solvers/sweep.h"
#include "tests/problems.h"
#include "tests/suites/solver_cases.h"

namespace deq {
namespace {

using at::Tensor;
using namespace testing;

const std::vector<int64_t> kLimits = {1, 2, 3, 5, 8, 21, 60};

void expect_same(const Tensor& found, const Tensor& wanted, const std::string& what) {
  EXPECT_TRUE(found.nan_to_num(-7).equal(wanted.nan_to_num(-7))) << what << "\n"
                                                                 << found << "\n"
                                                                 << wanted;
}

/// `make` gives f anew for each solve.
void expect_limits(const std::function<Map()>& make, const Tensor& z0, const Solver& solver,
                   const StopRule& stop) {
  std::vector<int64_t> seen;
  solve_at_limits(make(), z0, solver, stop, kLimits, [&](const AtLimit& at) {
    seen.push_back(at.max_steps);
    StopRule own = stop;
    own.max_steps = at.max_steps;
    const Solution alone = solve(make(), z0, solver, own);
    const std::string limit = "limit " + std::to_string(at.max_steps) + " ";
    const Report &found = at.solution.report, &wanted = alone.report;
    expect_same(at.solution.z, alone.z, limit + "z");
    expect_same(found.reason, wanted.reason, limit + "reason");
    expect_same(found.residual, wanted.residual, limit + "residual");
    expect_same(found.steps, wanted.steps, limit + "steps");
    expect_same(found.rate, wanted.rate, limit + "rate");
    EXPECT_EQ(found.evaluations, wanted.evaluations) << limit;
    EXPECT_EQ(found.max_steps, at.max_steps);
    EXPECT_EQ(at.longest, wanted.trace.size(0)) << limit;
    EXPECT_EQ(at.best.sizes(), z0.sizes());
    EXPECT_GE(at.seconds, 0);
  });
  EXPECT_EQ(seen, kLimits);
}

class EveryLimit : public ::testing::TestWithParam<SolverCase> {};

TEST_P(EveryLimit, AreSolvesOfTheirOwn) {
  const SolverCase& c = GetParam();
  const Problem problem = causal(3, 4, 6, c.type);
  const Tensor z0 = randn({3, 4, 6}, c.type, 7);
  expect_limits([&] { return problem.f; }, z0, c.solver,
                {.rel_tol = c.is_double() ? 1e-5 : 1e-3});  // some rows are done before others
}

/// Rows that grow without end, that leave the numbers, that are put back, and that settle.
TEST_P(EveryLimit, AreSolvesOfTheirOwnWhereRowsFail) {
  const SolverCase& c = GetParam();
  const Tensor scale = at::tensor({0.5, 3., 40., 0.1}, at::kDouble).to(c.type).view({4, 1, 1});
  const Map f = [scale](const Tensor& z) { return (1 + scale * z).sqrt() - 0.3 * scale * z.abs(); };
  const Tensor z0 = at::ones({4, 2, 3}, c.type) - 0.01 * randn({4, 2, 3}, c.type, 8).abs();
  expect_limits([&] { return f; }, z0, c.solver, {.rel_tol = 1e-4});
}

INSTANTIATE_TEST_SUITE_P(All, EveryLimit, ::testing::ValuesIn(solver_cases()),
                         [](const ::testing::TestParamInfo<SolverCase>& info) {
                           return info.param.name;
                         });

TEST(Limits, AMethodWithABeginningOfItsOwnBeginsOnce) {
  at::manual_seed(3);
  const auto cell = std::make_shared<ShiftCell>(Shift{.width = 6, .inner = 8});
  cell->initialise(0.5);
  const Tensor x = randn({2, 9, 6}, at::kFloat, 9);
  const Map f = cell->bind(x, {}).f;
  expect_limits([&] { return f; }, at::zeros_like(x), Sweep{}, {.rel_tol = 1e-4});
  solve_at_limits(f, at::zeros_like(x), Sweep{}, {}, {4}, [](const AtLimit& at) {
    EXPECT_EQ(at.beginning, 1);
    EXPECT_EQ(at.solution.report.evaluations, 1 + at.longest);
  });
}

/// A map that turns and grows a little: no later iterate is as good as the first ones.
TEST(Limits, TheBestIterateStandsBesideTheLatest) {
  const Map f = [](const Tensor& z) { return 1.05 * z.roll(1, -1) * at::tensor({1., -1.}) + 1; };
  const Tensor z0 = at::zeros({2, 1, 2}, at::kDouble);
  const auto residual = [&](const Tensor& z) { return residual_of(f, z, Scope::Sample); };
  solve_at_limits(f, z0, Picard{.scope = Scope::Sample}, {.rel_tol = 1e-12}, {1, 9, 30},
                  [&](const AtLimit& at) {
                    const Tensor best = residual(at.best), latest = residual(at.solution.z);
                    EXPECT_TRUE(best.le(latest).all().item<bool>()) << at.max_steps;
                    EXPECT_EQ(best.lt(latest).all().item<bool>(), at.max_steps > 1);
                  });
}

/// Whose evaluations leave out what has converged.
TEST(Limits, AnFThatIsEvaluatedInPartIsSeenAsAWhole) {
  at::manual_seed(4);
  c10::NoGradGuard no_tape;
  const auto cell = make_cell(Transformer{.width = 8, .heads = 2, .inner = 12}, {});
  cell->initialise(0.4);
  cell->eval();
  const Tensor x = randn({3, 10, 8}, at::kFloat, 11);
  const auto bind = [&] { return cell->bind(x, {}).f; };
  for (const Scope scope : {Scope::Causal, Scope::Sample})
    expect_limits(bind, at::zeros_like(x), Anderson{.scope = scope}, {.rel_tol = 1e-3});
}

/// A row that rounding lifts above its tolerance is left at rest while others move, and is not
/// called converged at the end.
TEST(Limits, NothingIsAllowedForAtTheEnd) {
  const auto make = [] {
    return Map([calls = std::make_shared<int>(0)](const Tensor& z) {
      const double by = ++*calls == 1 ? 1e-3 * (1 - 1e-12) : 1e-3 * (1 + 1e-12);
      return z + at::tensor({by, 1.0}, at::kDouble).view({2, 1});
    });
  };
  const Tensor z0 = at::tensor({1.0, 0.0}, at::kDouble).view({2, 1});
  const StopRule stop{.rel_tol = 0, .abs_tol = 1e-3};
  expect_limits(make, z0, Picard{.scope = Scope::Sample}, stop);
  solve_at_limits(make(), z0, Picard{.scope = Scope::Sample}, stop, {1, 2}, [](const AtLimit& at) {
    EXPECT_EQ(at.solution.report.count(Reason::Converged), at.max_steps == 1 ? 1 : 0);
  });
}

TEST(Limits, ThoseOfNoSolveAreErrors) {
  const Map f = [](const Tensor& z) { return 0.5 * z; };
  const auto nothing = [](const AtLimit&) {};
  EXPECT_THROW(solve_at_limits(f, at::zeros({1, 1, 1}), {}, {}, {}, nothing), Error);
  EXPECT_THROW(solve_at_limits(f, at::zeros({1, 1, 1}), {}, {}, {0, 3}, nothing), Error);
}

}  // namespace
}  // namespace deq
