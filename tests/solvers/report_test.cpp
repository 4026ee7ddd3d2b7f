#include "deq/solvers/report.h"

#include <gtest/gtest.h>

#include "deq/solvers/anderson.h"
#include "deq/solvers/broyden.h"
#include "deq/solvers/picard.h"
#include "tests/problems.h"
#include "tests/suites/solver_cases.h"

namespace deq {
namespace {

using at::Tensor;
using namespace testing;

const Map kHalve = [](const Tensor& z) { return 0.5 * z; };  // |f - z| / |f| is 1 everywhere

Report report_with(std::vector<Reason> reasons, std::vector<double> residuals) {
  Report r;
  r.reason = at::empty({int64_t(reasons.size())}, at::kByte);
  for (size_t i = 0; i < reasons.size(); ++i) r.reason[int64_t(i)] = int64_t(reasons[i]);
  r.residual = at::tensor(residuals, at::kDouble);
  r.evaluations = 12;
  r.max_steps = 11;
  r.rel_tol = 1e-3;
  return r;
}

TEST(Report, SaysInOneLineWhyItStopped) {
  using enum Reason;
  EXPECT_EQ(describe(report_with({Converged, Converged}, {1e-4, 5e-4})),
            "converged: residual 5.0e-04 <= rel_tol 1.0e-03 after 12 evaluations");
  EXPECT_EQ(describe(report_with({Converged, MaxSteps}, {1e-4, 0.5})),
            "stopped after 11 steps: residual 5.0e-01 > rel_tol 1.0e-03 in 1 of 2 rows");
  EXPECT_EQ(describe(report_with({Diverged, Converged}, {0.9, 1e-4})),
            "diverged in 1 of 2 rows: |f(z) - z| grew 1e+06-fold within 12 evaluations");
  EXPECT_EQ(describe(report_with({Reason::Infeasible, MaxSteps}, {INFINITY, 1})),
            "no state meets the constraints in 1 of 2 rows");
  EXPECT_EQ(describe(report_with({NonFinite, Diverged, MaxSteps}, {INFINITY, 1, 1})),
            "f(z) is not finite in 1 of 3 rows after 12 evaluations");
}

TEST(Report, CountsRowsThatWaitForOthersApart) {
  using enum Reason;
  EXPECT_EQ(describe(report_with({Converged, MaxSteps, MaxSteps, MaxSteps}, {1e-4, 0.5, 1e-4, 0})),
            "stopped after 11 steps: residual 5.0e-01 > rel_tol 1.0e-03 in 1 of 4 rows, which 2 "
            "more wait for");
}

TEST(Report, SaysWhereASmallResidualIsNoSmallError) {
  using enum Reason;
  Report r = report_with({Converged, Converged}, {1e-4, 5e-4});
  r.rate = at::tensor({0.5, 0.9}, at::kDouble);
  EXPECT_NEAR(r.error_estimate(), 5e-3, 1e-12);
  EXPECT_EQ(describe(r), "converged: residual 5.0e-04 <= rel_tol 1.0e-03 after 12 evaluations");
  r.rate = at::tensor({double(NAN), 0.999}, at::kDouble);
  EXPECT_NEAR(r.error_estimate(), 0.5, 1e-9);
  EXPECT_EQ(describe(r),
            "converged: residual 5.0e-04 <= rel_tol 1.0e-03 after 12 evaluations; f passes on up "
            "to 0.999 of a change, so that the error is about 5e-01");
  r.rate = at::full({2}, NAN, at::kDouble);
  EXPECT_TRUE(std::isnan(r.error_estimate()));
  EXPECT_TRUE(std::isnan(Report().error_estimate()));
}

/// Symmetric, with one eigenvalue of `radius` and the others within a half.
Tensor slow_in_one_direction(int64_t n, double radius) {
  const Tensor q = std::get<0>(at::linalg_qr(randn({n, n}, at::kDouble, 41)));
  Tensor values = at::linspace(-0.5, 0.5, n, at::kDouble);
  values[n - 1] = radius;
  return at::matmul(q * values, q.t());
}

TEST(Report, EstimatesTheErrorFromWhatFPassesOn) {
  const Tensor b = randn({1, 24}, at::kDouble, 42);
  for (const double radius : {0.9, 0.99, 0.999, 0.9999}) {
    const Tensor m = slow_in_one_direction(24, radius);
    const Map f = [&](const Tensor& z) { return at::matmul(z, m) + b; };
    const Tensor solution =
        at::linalg_solve(at::eye(24, at::kDouble) - m.t(), b.squeeze(0)).unsqueeze(0);
    for (const Solver& solver : {Solver(Picard{}), Solver(Anderson{}), Solver(Broyden{})}) {
      for (const Order order : {Order::Forward, Order::Backward}) {
        const Solution s = solve(f, b, solver, {.max_steps = 20000, .rel_tol = 1e-4}, order);
        SCOPED_TRACE(
            fmt::format("{} {}: rate {}", name_of(solver), radius, s.report.rate.item<double>()));
        ASSERT_TRUE(s.report.converged());
        const double error = ((s.z - solution).norm() / f(s.z).norm()).item<double>();
        EXPECT_GT(s.report.error_estimate(), error / 5) << error;
        // Broyden's last step may have taken away just what f passes on: less is left than that.
        EXPECT_LT(s.report.error_estimate(), error * 20) << error;
        EXPECT_TRUE(radius < 0.99 || describe(s.report).find("passes on") != std::string::npos)
            << describe(s.report);
      }
    }
  }
}

TEST(Report, DoesNotClaimTheRelativeToleranceWhereTheAbsoluteOneWasMet) {
  const Solution s = solve(kHalve, at::ones({1, 1}, at::kDouble), Picard{},
                           {.max_steps = 50, .rel_tol = 1e-3, .abs_tol = 1e-4});
  ASSERT_TRUE(s.report.converged());
  ASSERT_GT(s.report.worst_residual(), 1e-3);
  EXPECT_EQ(describe(s.report),
            fmt::format("converged: |f(z) - z| <= abs_tol 1.0e-04 (residual 1.0e+00) after {} "
                        "evaluations",
                        s.report.evaluations));
}

TEST(Report, CountsSharesAndMeans) {
  using enum Reason;
  const Report r = report_with({Converged, MaxSteps, Converged, Diverged}, {1, 2, 3, 4});
  EXPECT_FALSE(r.converged());
  EXPECT_EQ(r.converged_share(), 0.5);
  EXPECT_EQ(r.worst_residual(), 4);
  EXPECT_EQ(r.mean_residual(), 2.5);
  EXPECT_EQ(r.count(Converged), 2);
  EXPECT_EQ(r.count(NonFinite), 0);
  const Report empty = report_with({}, {});
  EXPECT_TRUE(empty.converged());
  EXPECT_EQ(empty.converged_share(), 1);
  EXPECT_EQ(empty.worst_residual(), 0);
}

TEST(Report, WithoutASolveNothingConverged) {
  const Report none;
  EXPECT_FALSE(none.converged());
  EXPECT_EQ(none.converged_share(), 0);
  EXPECT_EQ(describe(none), "no solve is reported");
}

TEST(Layout, FoldsStatesOfAnyRank) {
  struct Fold {
    std::vector<int64_t> sizes;
    int64_t batch, positions, features;
  };
  for (const Fold& fold : {Fold{{}, 1, 1, 1},
                           {{5}, 1, 1, 5},
                           {{3, 5}, 3, 1, 5},
                           {{3, 4, 5}, 3, 4, 5},
                           {{3, 4, 5, 2}, 3, 4, 10},
                           {{0, 4, 5}, 0, 4, 0}}) {
    const Tensor z = at::zeros(fold.sizes);
    const Layout sample(z, Scope::Sample, Order::Forward),
        position(z, Scope::Position, Order::Forward);
    EXPECT_EQ(sample.batch, fold.batch);
    EXPECT_EQ(sample.positions, fold.positions);
    EXPECT_EQ(sample.features, fold.features);
    const Layout whole(z, Scope::Whole, Order::Forward);
    EXPECT_EQ(whole.rows(), 1);
    EXPECT_EQ(whole.fold(z).sizes(), (at::IntArrayRef{1, z.numel()}));
    EXPECT_EQ(sample.rows(), fold.batch);
    EXPECT_EQ(position.rows(), fold.batch * fold.positions);
    EXPECT_EQ(sample.fold(z).numel(), z.numel());
    EXPECT_EQ(position.fold(z).size(0), position.rows());
  }
}

}  // namespace
}  // namespace deq
