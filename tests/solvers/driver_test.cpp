#include "deq/solvers/driver.h"

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

const Map kHalve = [](const Tensor& z) { return 0.5 * z; };  // |f - z| / |f| is 1 everywhere
const Map kToOne = [](const Tensor& z) { return 0.5 * z + 0.5; };

Layout rows(const Tensor& z) { return Layout(z, Scope::Sample, Order::Forward); }

/// Proposes the given values one after the other, the same in every row.
Propose scripted(std::vector<double> values) {
  auto next = std::make_shared<size_t>(0);
  return [=](const Iterate& at) -> Proposal {
    return {at::full_like(at.z, values.at((*next)++)), {}};
  };
}

TEST(Driver, ReturnsTheBestIterateAndItsResidual) {
  const Tensor z0 = at::zeros({1, 1}, at::kDouble);
  const Solution s =
      iterate(kToOne, z0, scripted({0.9, 1.01, 2, 5}), {.max_steps = 5, .rel_tol = 1e-6}, rows(z0));
  EXPECT_NEAR(s.z.item<double>(), 1.01, 1e-15);
  EXPECT_NEAR(s.report.worst_residual(), 0.005 / 1.005, 1e-12);
  EXPECT_EQ(s.report.evaluations, 5);
  EXPECT_EQ(s.report.count(Reason::MaxSteps), 1);
  EXPECT_EQ(s.report.steps[0].item<int64_t>(), 5);
}

TEST(Driver, TheTraceHoldsTheResidualOfEveryIterate) {
  const Tensor z0 = at::zeros({1, 1}, at::kDouble);
  const std::vector<double> values = {0.9, 1.01, 2, 5};
  const Solution s =
      iterate(kToOne, z0, scripted(values), {.max_steps = 5, .rel_tol = 0}, rows(z0));
  ASSERT_EQ(s.report.trace.sizes(), (at::IntArrayRef{5, 1}));
  EXPECT_EQ(s.report.trace[0].item<double>(), 1);
  for (size_t k = 0; k < values.size(); ++k) {
    const Tensor z = at::full({1, 1}, values[k], at::kDouble);
    EXPECT_NEAR(s.report.trace[int64_t(k) + 1].item<double>(),
                residual_of(kToOne, z, Scope::Sample).item<double>(), 1e-15);
  }
}

TEST(Driver, RowsThatAreDoneAreHeld) {
  // Row 0 is converged from the start; the method would move it away.
  std::vector<Tensor> points;
  const Map f = [&](const Tensor& z) { return points.push_back(z.clone()), kToOne(z); };
  const Tensor z0 = at::tensor({1., 0.}, at::kDouble).view({2, 1});
  const Solution s =
      iterate(f, z0, scripted({7, 6, 1, 8}), {.max_steps = 9, .rel_tol = 1e-9}, rows(z0));
  for (const Tensor& z : points) EXPECT_EQ(z[0].item<double>(), 1);
  EXPECT_TRUE(s.report.converged());
  EXPECT_TRUE(at::equal(s.z, at::ones({2, 1}, at::kDouble)));
  EXPECT_TRUE(at::equal(s.report.steps, at::tensor({1, 4}, at::kLong)));
  EXPECT_EQ(s.report.evaluations, 4);
  for (int64_t k = 0; k < 4; ++k) EXPECT_EQ(s.report.trace[k][0].item<double>(), 0);
}

TEST(Driver, TellsTheMethodWhichRowsAreDone) {
  std::vector<Tensor> active;
  const Propose picard = [&](const Iterate& at) -> Proposal {
    active.push_back(at.active());
    return {at.fz, {}};
  };
  const Tensor z0 = at::tensor({0., 1., NAN}, at::kDouble).view({3, 1});
  iterate(kToOne, z0, picard, {.max_steps = 3, .rel_tol = 1e-9}, rows(z0));
  ASSERT_EQ(active.size(), 2u);
  EXPECT_TRUE(at::equal(active[0], at::tensor({1, 0, 0}).to(at::kBool)));
}

TEST(Driver, AnyCallableIsAMap) {
  struct Counting {
    int calls = 0;
    Tensor operator()(Tensor z) { return ++calls, 0.5 * z + 0.5; }
  };
  const Propose picard = [](const Iterate& at) -> Proposal { return {at.fz, {}}; };
  const Tensor z0 = at::zeros({2, 3}, at::kDouble);
  EXPECT_TRUE(iterate(Counting(), z0, picard, {.max_steps = 60}, rows(z0)).report.converged());
  EXPECT_FALSE(Map());
  EXPECT_TRUE(Map(Counting()));
}

TEST(Driver, TellsTheMapWhichPositionsAreDone) {
  const Tensor rate = at::tensor({0.5, 0.1, 0.8, 0.9}, at::kDouble).view({1, 4, 1});
  const auto f = [&](const Tensor& z) { return 1 + rate * (z - 1); };
  std::vector<int64_t> seen;
  const Map map(f, [&]() -> Map::Series {
    return [&](const Tensor& z, const std::vector<int64_t>& done) {
      EXPECT_EQ(done.size(), 1u);
      seen.push_back(done[0]);
      return f(z);
    };
  });
  const Propose picard = [](const Iterate& at) -> Proposal { return {at.fz, {}}; };
  const Tensor z0 = at::zeros({1, 4, 1}, at::kDouble);
  const StopRule stop{.max_steps = 20, .rel_tol = 1e-3};
  const Solution s = iterate(map, z0, picard, stop, Layout(z0, Scope::Position, Order::Forward));
  const int64_t* steps = s.report.steps.data_ptr<int64_t>();
  EXPECT_EQ(steps[1], steps[0]);
  EXPECT_FALSE(s.report.converged());
  for (size_t evaluation = 0; evaluation < seen.size(); ++evaluation) {
    const auto done =
        std::find_if(steps, steps + 3, [&](int64_t step) { return step > int64_t(evaluation); });
    EXPECT_EQ(seen[evaluation], done - steps) << evaluation;
  }
  seen.clear();
  iterate(map, z0, picard, stop, Layout(z0, Scope::Position, Order::Backward));
  EXPECT_EQ(std::count(seen.begin(), seen.end(), 0), int64_t(seen.size()));
}

TEST(Driver, ResidualsThatAreNotFiniteReachTheMethodAsZero) {
  const Propose picard = [&](const Iterate& at) -> Proposal {
    EXPECT_EQ(at.g[1].item<double>(), 0);
    EXPECT_NE(at.g[0].item<double>(), 0);
    return {at.fz, {}};
  };
  const Tensor z0 = at::tensor({0., NAN}, at::kDouble).view({2, 1});
  iterate(kToOne, z0, picard, {.max_steps = 2, .rel_tol = 1e-9}, rows(z0));
}

TEST(Driver, TakesFOfAProposalFromTheMethod) {
  const Propose looking = [](const Iterate& at) -> Proposal { return {at.fz, at.evaluate(at.fz)}; };
  for (const std::vector<double>& start : {std::vector<double>{0.}, {0., 1.}, {0., NAN}}) {
    Counted counted(kToOne);
    const Tensor z0 = at::tensor(start, at::kDouble).view({int64_t(start.size()), 1});
    const Solution s =
        iterate(counted.map, z0, looking, {.max_steps = 9, .rel_tol = 1e-12}, rows(z0));
    EXPECT_EQ(counted.calls, 9);
    EXPECT_EQ(s.report.evaluations, 9);
    EXPECT_NEAR(s.z[0].item<double>(), 1 - std::pow(0.5, 8), 1e-12);
  }
}

TEST(Driver, WhatAMethodEvaluatesHoldsTheRowsThatAreDone) {
  std::vector<Tensor> points;
  const Map f = [&](const Tensor& z) { return points.push_back(z.clone()), kToOne(z); };
  const Propose looking = [](const Iterate& at) -> Proposal {
    const Tensor z = at.fz + 3;
    return {z, at.evaluate(z)};
  };
  const Tensor z0 = at::tensor({0., 1.}, at::kDouble).view({2, 1});
  iterate(f, z0, looking, {.max_steps = 4, .rel_tol = 1e-12}, rows(z0));
  EXPECT_EQ(points.size(), 4u);
  for (const Tensor& z : points) EXPECT_EQ(z[1].item<double>(), 1);
}

TEST(Driver, ErrorsOfFPassThrough) {
  const Map f = [](const Tensor&) -> Tensor { throw std::logic_error("from f"); };
  EXPECT_THROW(solve(f, at::zeros({1, 1})), std::logic_error);
}

TEST(Driver, StatesOfPositionsFromSeveralStepsAreMeasuredTogether) {
  // Position 1 looks at position 0, for which the last step is far worse than the second.
  const Map f = [](const Tensor& z) {
    const Tensor first = 0.5 * z.select(1, 0) + 0.5;
    return at::stack({first, 0.5 * z.select(1, 1) + 0.5 * z.select(1, 0) + 0.3}, 1);
  };
  Counted counted(f);
  const Tensor z0 = at::zeros({1, 2, 1}, at::kDouble);
  const std::vector<double> script = {0.99, 1.2, 3};
  const Layout layout(z0, Scope::Position, Order::Forward);
  const Solution s = iterate(counted.map, z0, scripted(script), {.max_steps = 4}, layout);
  EXPECT_TRUE(at::equal(s.z.view(-1), at::tensor({0.99, 3.}, at::kDouble)));
  EXPECT_EQ(s.report.evaluations, 5);
  EXPECT_EQ(counted.calls, 5);
  EXPECT_TRUE(at::allclose(s.report.residual, residual_of(f, s.z, Scope::Position), 1e-12, 0));
}

TEST(Driver, APositionGivenUpIsMeasuredWhereTheOthersEnd) {
  // Position 1 is given up while position 0, at which it looks, still moves; its best state is the
  // first, with a residual of 0 there and of 1 where position 0 ends.
  const Map f = [](const Tensor& z) {
    const Tensor first = z.select(1, 0), second = 0.1 * z.select(1, 1) + first;
    const Tensor hole = first.gt(0.6).logical_and(first.lt(0.98));
    return at::stack({0.9 * first + 0.1, second.masked_fill(hole, INFINITY)}, 1);
  };
  const Tensor z0 = at::zeros({1, 2, 1}, at::kDouble);
  for (const Scope scope : {Scope::Position, Scope::Causal}) {
    Counted counted(f);
    const Solution s = iterate(
        counted.map, z0,
        [](const Iterate& at) -> Proposal {
          return {at.fz, {}};
        },
        {.max_steps = 60}, Layout(z0, scope, Order::Forward));
    EXPECT_EQ(s.report.count(Reason::Converged), 1);
    EXPECT_EQ(s.report.count(Reason::NonFinite), 1);
    EXPECT_TRUE(at::allclose(s.report.residual, residual_of(f, s.z, scope), 1e-12, 0));
    EXPECT_EQ(s.report.evaluations, counted.calls);
  }
}

TEST(Driver, TinyFloatsHaveAResidualToo) {
  const Map f = [](const Tensor& z) { return 0.5 * z + 0.5e-24; };
  const Tensor z0 = at::zeros({2, 8}, at::kFloat);
  const Solution s = solve(f, z0, Picard{}, {.max_steps = 60, .rel_tol = 1e-5});
  EXPECT_TRUE(s.report.converged());
  EXPECT_GT(s.report.evaluations, 10);
  EXPECT_TRUE(at::allclose(s.z, at::full_like(z0, 1e-24), 1e-4, 0));
}

TEST(Driver, NumbersOfAnySizeHaveAResidual) {
  for (const Scope scope : {Scope::Sample, Scope::Position, Scope::Whole}) {
    for (const double size : {1e200, 1e-170, 1e-300}) {
      for (const Solver& solver : {Solver(Picard{}), Solver(Anderson{}), Solver(Broyden{})}) {
        const Map f = [&](const Tensor& z) { return 0.5 * z + 0.5 * size; };
        const Solution s = solve(f, at::zeros({2, 3}, at::kDouble), with_scope(solver, scope),
                                 {.max_steps = 80, .rel_tol = 1e-9});
        EXPECT_TRUE(s.report.converged()) << size << ": " << describe(s.report);
        EXPECT_LT(largest(s.z / size - 1), 1e-7) << size;
      }
    }
  }
}

TEST(Driver, AResidualThatIsNotSmallIsNeverCalledSmall) {
  // |g| / |f| is 1 until nothing is left of z.
  const Solution s =
      solve(kHalve, at::ones({1, 1}, at::kDouble), Picard{}, {.max_steps = 2000, .rel_tol = 1e-3});
  EXPECT_TRUE(s.report.converged());
  EXPECT_EQ(s.z.item<double>(), 0);
  EXPECT_EQ(s.report.worst_residual(), 0);
  const Solution early =
      solve(kHalve, at::ones({1, 1}, at::kDouble), Picard{}, {.max_steps = 1000, .rel_tol = 1e-3});
  EXPECT_FALSE(early.report.converged());
  EXPECT_EQ(early.report.worst_residual(), 1);
}

TEST(Driver, GrowthFromATinyBeginningIsNoDivergence) {
  for (const double first : {1e-8, 1e-14, 1e-30}) {
    const Map f = [&](const Tensor& z) { return at::tanh(3 * z + first); };
    const Solution s = solve(f, at::zeros({1, 4}, at::kDouble), Picard{}, {.max_steps = 200});
    EXPECT_TRUE(s.report.converged()) << describe(s.report);
    EXPECT_NEAR(s.z[0][0].item<double>(), 0.995, 1e-3);
  }
  const Solution lost = solve([](const Tensor& z) { return 3 * z + 1e-8; },
                              at::zeros({1, 4}, at::kDouble), Picard{}, {.max_steps = 200});
  EXPECT_EQ(lost.report.count(Reason::Diverged), 1);
  EXPECT_LT(lost.report.evaluations, 50);
}

TEST(Driver, WhatIsOpenAtTheEndIsTheLastIterate) {
  const Problem slow = causal(2, 9, 5, at::kDouble);
  for (const Scope scope : {Scope::Sample, Scope::Position, Scope::Causal, Scope::Whole}) {
    std::vector<Tensor> points;
    const Map f = [&](const Tensor& z) { return points.push_back(z.clone()), slow.f(z); };
    const Solution s =
        solve(f, slow.z0, Anderson{.scope = scope}, {.max_steps = 9, .rel_tol = 1e-12});
    EXPECT_EQ(s.report.evaluations, 9);
    EXPECT_TRUE(at::equal(s.z, points.back()));
    EXPECT_TRUE(at::allclose(s.report.residual, residual_of(slow.f, s.z, scope), 1e-12, 0));
  }
}

TEST(Driver, ALastIterateThatIsFarWorseIsNotReturned) {
  const Tensor z0 = at::zeros({1, 1}, at::kDouble);
  const auto last = [&](double away) {
    return iterate(kToOne, z0, scripted({1.01, 1 + away}), {.max_steps = 3, .rel_tol = 1e-6},
                   rows(z0))
        .z.item<double>();
  };
  EXPECT_DOUBLE_EQ(last(0.029), 1.029);
  EXPECT_DOUBLE_EQ(last(0.032), 1.01);  // more than three times as far
}

TEST(Driver, ARowWhereFIsNotFiniteStepsBackFirst) {
  // Not a number above 1; the solution is 0.9, and the first full step leads to 1.35.
  const Map f = [](const Tensor& z) {
    return (1.35 - 0.5 * z).masked_fill(z.gt(1), std::numeric_limits<double>::quiet_NaN());
  };
  const Tensor z0 = at::zeros({2, 3}, at::kDouble), expected = at::full_like(z0, 0.9);
  for (const Solver& plain : {Solver(Picard{}), Solver(Anderson{}), Solver(Broyden{}),
                              Solver(Broyden{.line_search = true})}) {
    for (const Scope scope : {Scope::Sample, Scope::Whole}) {
      const Solution s = solve(f, z0, with_scope(plain, scope), {.max_steps = 60, .rel_tol = 1e-9});
      EXPECT_TRUE(s.report.converged()) << describe(s.report);
      EXPECT_LT(largest(s.z - expected), 1e-7);
    }
  }
  // Where that does not help, it is said, and not after all the steps.
  const Map none = [](const Tensor& z) {
    return (z + 1).masked_fill(z.gt(0), std::numeric_limits<double>::quiet_NaN());
  };
  const Solution s = solve(none, z0, Picard{}, {.max_steps = 60});
  EXPECT_EQ(s.report.count(Reason::NonFinite), 2);
  EXPECT_TRUE(at::equal(s.z, z0));
  EXPECT_LE(s.report.evaluations, 2 + kStepsBack + 1);
}

TEST(Driver, ATraceOfManyRowsIsCut) {
  const int64_t rows = 1 << 20;
  const Tensor z0 = at::zeros({rows, 1}), rate = at::full({rows, 1}, 0.5f);
  const Solution s = solve([&](const Tensor& z) { return rate * z + 1; }, z0, Picard{},
                           {.max_steps = 9, .rel_tol = 1e-12});
  EXPECT_EQ(s.report.trace.sizes(), (at::IntArrayRef{4, rows}));
}

}  // namespace
}  // namespace deq
