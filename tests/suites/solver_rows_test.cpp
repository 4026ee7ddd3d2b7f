// Rows of a solve that do not know of each other: other samples, and positions that come later.
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

class SolverRows : public ::testing::TestWithParam<SolverCase> {
 protected:
  Solution solve(const Map& f, const Tensor& z0, const StopRule& stop,
                 Order order = Order::Forward) const {
    return deq::solve(f, z0, GetParam().solver, stop, order);
  }
  /// The rows [begin, end) of the batch, out of something that has one entry per row.
  Tensor rows_of(const Tensor& entries, int64_t batch, int64_t begin, int64_t end) const {
    const int64_t each = entries.numel() / batch;
    return entries.slice(0, begin * each, end * each);
  }
};
/// Without scope `whole`, which has one row.
std::vector<SolverCase> cases_with_rows() {
  std::vector<SolverCase> cases = solver_cases();
  std::erase_if(cases, [](const SolverCase& c) { return c.scope == Scope::Whole; });
  return cases;
}
INSTANTIATE_TEST_SUITE_P(All, SolverRows, ::testing::ValuesIn(cases_with_rows()), PrintName());

TEST_P(SolverRows, ASampleDoesNotDependOnItsBatch) {
  const SolverCase& c = GetParam();
  // Samples of very different difficulty: the sizes of x differ by orders of magnitude.
  const Tensor x = randn({5, 6, 33}, c.type, 11) *
                   at::tensor({1e-3, 1e-1, 1., 3., 10.}, at::kDouble).to(c.type).view({5, 1, 1});
  const Solution together = solve(causal_map(x), at::zeros_like(x), c.tight());
  for (int64_t b = 0; b < 5; ++b) {
    const Tensor own = x.narrow(0, b, 1).contiguous();
    const Solution alone = solve(causal_map(own), at::zeros_like(own), c.tight());
    EXPECT_TRUE(at::equal(alone.z, together.z.narrow(0, b, 1)))
        << "sample " << b << ": " << largest(alone.z - together.z.narrow(0, b, 1));
    EXPECT_TRUE(at::equal(alone.report.reason, rows_of(together.report.reason, 5, b, b + 1)));
    EXPECT_TRUE(at::equal(alone.report.steps, rows_of(together.report.steps, 5, b, b + 1)));
    EXPECT_TRUE(at::equal(alone.report.residual, rows_of(together.report.residual, 5, b, b + 1)));
  }
}

/// In sample `bad`, f(z) turns `poison` once |z| has grown past `bound`.
Map poisoned(const Map& f, int64_t bad, double bound, double poison) {
  return [=](const Tensor& z) {
    Tensor fz = f(z).clone();
    if (z[bad].abs().max().item<double>() >= bound) fz[bad].view(-1)[0] = poison;
    return fz;
  };
}

TEST_P(SolverRows, ARowThatIsNotFiniteDoesNotTouchTheOthers) {
  const SolverCase& c = GetParam();
  const Problem clean = causal(4, 6, 5, c.type);
  const Solution expected = solve(clean.f, clean.z0, c.tight());
  const double limit = clean.solution[2].abs().max().item<double>();
  for (const double poison : {double(NAN), double(INFINITY), -double(INFINITY)}) {
    for (const double bound : {0.0, 0.5 * limit, 0.999 * limit}) {
      const Map f = poisoned(clean.f, 2, bound, poison);
      const Solution s = solve(f, clean.z0, c.tight());
      for (const int64_t b : {0, 1, 3}) {
        EXPECT_TRUE(at::equal(s.z[b], expected.z[b]));
        const auto same = [&](const Tensor& a, const Tensor& e) {
          return at::equal(rows_of(a, 4, b, b + 1), rows_of(e, 4, b, b + 1));
        };
        EXPECT_TRUE(same(s.report.reason, expected.report.reason));
        EXPECT_TRUE(same(s.report.residual, expected.report.residual));
        EXPECT_TRUE(same(s.report.steps, expected.report.steps));
      }
      const Tensor reasons = rows_of(s.report.reason, 4, 2, 3);
      EXPECT_EQ(reasons[0].item<int64_t>(), int64_t(Reason::NonFinite));
      EXPECT_TRUE(reasons.ne(int64_t(Reason::Converged)).all().item<bool>());
      EXPECT_TRUE(s.z.isfinite().all().item<bool>()) << "the best iterate is kept";
      EXPECT_FALSE(s.report.converged());
    }
  }
}

TEST_P(SolverRows, AStartThatIsNotFiniteIsReported) {
  const Problem clean = contraction({3, 2, 4}, GetParam().type);
  const Solution expected = solve(clean.f, clean.z0, GetParam().tight());
  Tensor z0 = clean.z0.clone();
  z0[1].fill_(NAN);
  const Solution s = solve(clean.f, z0, GetParam().tight());
  EXPECT_TRUE(at::equal(s.z[0], expected.z[0]));
  EXPECT_TRUE(at::equal(s.z[2], expected.z[2]));
  EXPECT_EQ(s.report.count(Reason::NonFinite), GetParam().scope == Scope::Sample ? 1 : 2);
}

TEST_P(SolverRows, ARowWhoseResidualExplodesIsReportedAndKeepsItsBest) {
  const SolverCase& c = GetParam();
  const Problem clean = contraction({3, 1, 4}, c.type);
  const Solution expected = solve(clean.f, clean.z0, c.tight());
  // Sample 1 jumps away as soon as it moves, but not beyond the numbers.
  const Map f = [&](const Tensor& z) {
    Tensor fz = clean.f(z).clone();
    if (z[1].ne(0).any().item<bool>()) fz[1] += 1e9;
    return fz;
  };
  const Solution s = solve(f, clean.z0, c.tight());
  EXPECT_TRUE(at::equal(s.z[0], expected.z[0]));
  EXPECT_TRUE(at::equal(s.z[2], expected.z[2]));
  EXPECT_EQ(s.report.reason[1].item<int64_t>(), int64_t(Reason::Diverged)) << describe(s.report);
  EXPECT_TRUE(at::equal(s.z[1], clean.z0[1]));
  EXPECT_TRUE(at::allclose(s.report.residual, residual_of(f, s.z, c.scope), 1e-4, 1e-6));
}

TEST_P(SolverRows, NothingLeaksAgainstTheOrderOfPositions) {
  const SolverCase& c = GetParam();
  const int64_t T = 12;
  for (const Order order : {Order::Forward, Order::Backward}) {
    const bool forward = order == Order::Forward;
    const auto map = [&](const Tensor& x) {
      return forward ? causal_map(x) : backward_causal_map(x);
    };
    for (const double rel_tol : {1e-1, 1e-2, 1e-3}) {
      for (const int64_t max_steps : {4, 60}) {  // cut short, and not
        const StopRule stop = {.max_steps = max_steps, .rel_tol = rel_tol};
        const Tensor x = randn({2, T, 6}, c.type, 12);
        Tensor changed = x.clone();
        changed.select(1, forward ? T - 1 : 0).mul_(-20);
        const Solution a = solve(map(x), at::zeros_like(x), stop, order);
        const Solution b = solve(map(changed), at::zeros_like(x), stop, order);
        const int64_t from = forward ? 0 : 1;
        const Tensor before = a.z.narrow(1, from, T - 1), after = b.z.narrow(1, from, T - 1);
        EXPECT_FALSE(at::equal(a.z, b.z)) << "the changed position itself must move";
        if (c.scope == Scope::Sample) {
          // Why the other scopes exist. With Picard only the common stop leaks.
          const bool mixes = name_of(c.solver) != "picard";
          EXPECT_TRUE(!mixes || largest(before - after) > 0);
          continue;
        }
        EXPECT_TRUE(at::equal(before, after)) << largest(before - after);
        const auto kept = [&](const Tensor& rows) {
          return rows.view({2, T}).narrow(1, from, T - 1);
        };
        EXPECT_TRUE(at::equal(kept(a.report.reason), kept(b.report.reason)));
        EXPECT_TRUE(at::equal(kept(a.report.residual), kept(b.report.residual)));
      }
    }
  }
}

TEST_P(SolverRows, APositionConvergesOnlyAfterThoseItDependsOn) {
  const SolverCase& c = GetParam();
  if (c.scope == Scope::Sample) return;
  // Position 3 does not move by itself but waits for position 2, which is slow.
  const Map f = [](const Tensor& z) {
    const Tensor slow = 0.97 * z.select(1, 2) + 1;
    return at::stack({0.1 * z.select(1, 0) + 1, 0.1 * z.select(1, 1) + 2, slow, z.select(1, 2)}, 1);
  };
  const Tensor z0 = at::zeros({1, 4, 1}, c.type);
  for (const int64_t max_steps : {3, 6, 300}) {
    const Solution s = solve(f, z0, {.max_steps = max_steps, .rel_tol = 1e-4});
    const Tensor converged = s.report.reason.eq(int64_t(Reason::Converged)).view({1, 4});
    const Tensor prefix = std::get<0>(converged.to(at::kLong).cummin(1));
    EXPECT_TRUE(at::equal(prefix, converged.to(at::kLong))) << s.report.reason;
    const Tensor steps = s.report.steps.view({1, 4});
    EXPECT_TRUE(steps.diff(1, 1).ge(0).all().item<bool>()) << steps;
    const Tensor residual = residual_of(f, s.z, c.scope);
    EXPECT_TRUE(residual.masked_select(converged.view(-1)).le(1e-4).all().item<bool>()) << residual;
  }
}

TEST_P(SolverRows, APositionThatStartsAtRestIsNotDivergedWhenTheOnesBeforeItMove) {
  const SolverCase& c = GetParam();
  // A field of view of one position: at first, f(0) = 0 everywhere but at position 0.
  Tensor x = at::zeros({1, 6, 4}, c.type);
  x.select(1, 0).copy_(randn({1, 4}, c.type, 13));
  const Map f = [&](const Tensor& z) {
    const Tensor before = at::constant_pad_nd(z, {0, 0, 1, 0}).narrow(1, 0, 6);
    return 0.4 * softsign(z.roll(1, -1)) + 0.5 * before + x;
  };
  const Solution s = solve(f, at::zeros_like(x), c.tight());
  EXPECT_TRUE(s.report.converged()) << describe(s.report) << s.report.reason;
  EXPECT_LT(relative_error(s.z, picard_limit(f, at::zeros_like(x))), c.error());
}

TEST_P(SolverRows, PositionsAfterOneThatFailedAreNeverConverged) {
  const SolverCase& c = GetParam();
  const Problem clean = contraction({2, 5, 4}, c.type);  // positions do not see each other here
  const Solution expected = solve(clean.f, clean.z0, c.tight());
  const Map f = [&](const Tensor& z) {
    Tensor fz = clean.f(z).clone();
    fz[0][2].fill_(NAN);
    return fz;
  };
  const Solution s = solve(f, clean.z0, c.tight());
  EXPECT_TRUE(at::equal(s.z[1], expected.z[1]));
  if (c.scope == Scope::Sample) return;
  const Tensor converged = s.report.reason.eq(int64_t(Reason::Converged)).view({2, 5})[0];
  EXPECT_TRUE(at::equal(converged, at::tensor({1, 1, 0, 0, 0}).to(at::kBool)));
  EXPECT_TRUE(at::equal(s.z[0].narrow(0, 0, 2), expected.z[0].narrow(0, 0, 2)));
  EXPECT_LE(s.report.evaluations, expected.report.evaluations + 1)
      << "what can no longer converge is not evaluated until the steps run out";
}

}  // namespace
}  // namespace deq
