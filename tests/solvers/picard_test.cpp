#include "deq/solvers/picard.h"

#include <gtest/gtest.h>

#include "tests/problems.h"

namespace deq {
namespace {

using namespace testing;

TEST(Picard, IsTheIterationItself) {
  const Problem problem = contraction({2, 3, 4}, at::kDouble);
  at::Tensor z = problem.z0;
  const Solution s = solve(problem.f, z, Picard{}, {.max_steps = 9, .rel_tol = 0});
  for (int k = 0; k < 8; ++k) z = problem.f(z);  // the ninth evaluation measures z
  EXPECT_TRUE(at::equal(s.z, z));
  EXPECT_EQ(s.report.evaluations, 9);
}

TEST(Picard, ReachesCosine) {
  const Solution s = solve(cosine().f, cosine().z0, Picard{}, {.max_steps = 100, .rel_tol = 1e-14});
  EXPECT_TRUE(s.report.converged());
  EXPECT_NEAR(double(s.report.evaluations), 82, 3);
  EXPECT_LT(largest(s.z - cosine().solution), 1e-13);
}

TEST(Picard, SaysThatARepellingMapDiverges) {
  const Solution s = solve(line(-2, 1).f, line(-2, 1).z0, Picard{}, {.max_steps = 60});
  EXPECT_EQ(s.report.count(Reason::Diverged), 1);
  EXPECT_LT(s.report.evaluations, 30);
  EXPECT_TRUE(at::equal(s.z, line(-2, 1).z0)) << "the start was the best";
}

TEST(Picard, DampingTamesOscillation) {
  const Solution s = solve(line(-2, 1).f, line(-2, 1).z0, Picard{.damping = 0.4},
                           {.max_steps = 60, .rel_tol = 1e-9});
  EXPECT_TRUE(s.report.converged());
  EXPECT_NEAR(s.z.item<double>(), 1. / 3, 1e-8);
}

TEST(Picard, NeverConvergesOnARotation) {
  const Solution s = solve(rotation().f, rotation().z0, Picard{}, {.max_steps = 300});
  EXPECT_EQ(s.report.count(Reason::MaxSteps), 1);
}

}  // namespace
}  // namespace deq
