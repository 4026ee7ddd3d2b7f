#include "deq/solvers/small.h"

#include <gtest/gtest.h>

#include "tests/problems.h"

namespace deq::small {
namespace {

using at::Tensor;
using testing::randn;

Tensor gram(int64_t rows, int64_t m, int64_t n, uint64_t seed) {
  const Tensor g = randn({rows, m, n}, at::kDouble, seed);
  return g.matmul(g.transpose(1, 2));  // (rows, m, m)
}

/// Of every row by itself.
Tensor own_mixture(const Tensor& H, double ridge, int64_t newest) {
  const Layout layout(at::zeros({H.size(0), 1, 7}), Scope::Position, Order::Forward);
  return least_mixture(H.contiguous(), layout,
                       {.held = H.size(1), .newest = newest, .ridge = ridge});
}

/// The same minimum from its conditions of optimality: [[0, 1^T], [1, C]] [mu; a] = [1; 0].
Tensor kkt_mixture(const Tensor& H, double ridge) {
  const int64_t rows = H.size(0), m = H.size(1);
  Tensor system = at::ones({rows, m + 1, m + 1}, at::kDouble);
  system.select(1, 0).select(1, 0).zero_();
  const Tensor diagonal = H.diagonal(0, 1, 2);
  system.narrow(1, 1, m).narrow(2, 1, m).copy_(H + ridge * at::diag_embed(diagonal));
  Tensor right = at::zeros({rows, m + 1}, at::kDouble);
  right.select(1, 0).fill_(1);
  return at::linalg_solve(system, right.unsqueeze(2)).squeeze(2).narrow(1, 1, m);
}

TEST(LeastMixture, AgreesWithTheConditionsOfOptimality) {
  for (int64_t m = 1; m <= 10; ++m) {
    const Tensor H = gram(20, m, 2 * m + 3, uint64_t(m));
    for (const double ridge : {0.0, 1e-4, 0.3}) {
      const Tensor a = own_mixture(H, ridge, 0);
      EXPECT_TRUE(at::allclose(a, kkt_mixture(H, ridge), 1e-8, 1e-10)) << m;
      EXPECT_TRUE(at::allclose(a.sum(1), at::ones({20}, at::kDouble), 1e-12, 1e-12));
    }
  }
}

TEST(LeastMixture, DoesNotDependOnTheScale) {
  const Tensor H = gram(10, 5, 9, 20);
  const Tensor a = own_mixture(H, 1e-4, 0);
  EXPECT_TRUE(at::allclose(own_mixture(H * 1e-24, 1e-4, 0), a, 1e-8, 1e-12));
  EXPECT_TRUE(at::allclose(own_mixture(H * 1e+24, 1e-4, 0), a, 1e-8, 1e-12));
}

TEST(LeastMixture, OldIteratesOfGreatResidualsDoNotDrownTheNewest) {
  // Residuals that fall by a factor of 10 each, in orthogonal directions.
  const Tensor size = at::tensor({1e0, 1e-2, 1e-4, 1e-6, 1e-8}, at::kDouble);
  const Tensor a = own_mixture(at::diag(size).unsqueeze(0), 1e-4, 4);
  EXPECT_NEAR(a[0][4].item<double>(), 1, 0.02);
}

TEST(LeastMixture, BadRowsTakeThePicardStepAndLeaveTheOthersAlone) {
  Tensor H = gram(6, 3, 8, 21);
  const Tensor expected = own_mixture(H, 0, 1);
  H[0].fill_(NAN);
  H[1].zero_();
  H[2].fill_(INFINITY);
  H[3].fill_(1);  // rank 1
  const Tensor a = own_mixture(H, 0, 1);
  const Tensor newest = at::tensor({0., 1., 0.}, at::kDouble);
  for (int64_t r = 0; r < 4; ++r) EXPECT_TRUE(at::equal(a[r], newest)) << r << a[r];
  for (int64_t r = 4; r < 6; ++r) EXPECT_TRUE(at::equal(a[r], expected[r]));
  // With a ridge, equal residuals share equally.
  EXPECT_TRUE(at::allclose(own_mixture(H, 1e-4, 1)[3], at::full({3}, 1. / 3, at::kDouble)));
}

TEST(SolveOrZero, AgreesWithLu) {
  for (int64_t m = 1; m <= 25; m += 4) {
    const Tensor M = randn({12, m, m}, at::kDouble, uint64_t(30 + m));
    const Tensor b = randn({12, m}, at::kDouble, uint64_t(60 + m));
    const Tensor expected = at::linalg_solve(M, b.unsqueeze(2)).squeeze(2);
    EXPECT_TRUE(at::allclose(solve_or_zero(M, b), expected, 1e-7, 1e-9)) << m;
    EXPECT_TRUE(at::allclose(solve_or_zero(M * 1e-30, b * 1e-30), expected, 1e-7, 1e-9)) << m;
  }
}

TEST(SolveOrZero, PivotsAndDoesNotChangeItsArguments) {
  const Tensor M = at::tensor({0., 2., 3., 0.}, at::kDouble).view({1, 2, 2});
  const Tensor b = at::tensor({4., 9.}, at::kDouble).view({1, 2});
  const Tensor M0 = M.clone(), b0 = b.clone();
  EXPECT_TRUE(at::equal(solve_or_zero(M, b)[0], at::tensor({3., 2.}, at::kDouble)));
  EXPECT_TRUE(at::equal(M, M0) && at::equal(b, b0));
}

TEST(SolveOrZero, SingularRowsAreZero) {
  Tensor M = randn({5, 3, 3}, at::kDouble, 40);
  const Tensor b = randn({5, 3}, at::kDouble, 41);
  const Tensor expected = solve_or_zero(M, b);
  M[0].zero_();
  M[1].fill_(NAN);
  M[2].select(0, 1).zero_();
  const Tensor x = solve_or_zero(M, b);
  for (int64_t r = 0; r < 3; ++r) EXPECT_EQ(testing::largest(x[r]), 0) << r;
  EXPECT_TRUE(at::equal(x.narrow(0, 3, 2), expected.narrow(0, 3, 2)));
}

TEST(LeastMixture, InScopeCausalSumsWhatAPositionMaySee) {
  const int64_t batch = 3, T = 5, m = 4;
  const Tensor H = gram(batch * T, m, 6, 50);
  for (const Order order : {Order::Forward, Order::Backward}) {
    const Layout layout(at::zeros({batch, T, 7}), Scope::Causal, order);
    for (const double decay : {0.0, 0.5, 1.0}) {
      const Mixture options{.held = m, .newest = 2, .ridge = 1e-3, .decay = decay};
      const Tensor found = least_mixture(H, layout, options).view({batch, T, m});
      for (int64_t t = 0; t < T; ++t) {
        Tensor sum = at::zeros({batch, m, m}, at::kDouble);
        for (int64_t s = 0; s < T; ++s) {
          if (order == Order::Forward ? s > t : s < t) continue;
          sum += std::pow(decay, std::abs(double(t - s))) * H.view({batch, T, m, m}).select(1, s);
        }
        EXPECT_TRUE(at::allclose(found.select(1, t), own_mixture(sum, 1e-3, 2), 1e-9, 1e-12))
            << t << " " << decay;
      }
    }
  }
}

TEST(LeastMixture, LooksAtTheSlotsThatAreHeldOnly) {
  const Tensor whole = gram(6, 4, 9, 51);
  Tensor spoilt = whole.clone();
  spoilt.narrow(1, 2, 2).fill_(NAN);
  spoilt.narrow(2, 2, 2).fill_(NAN);
  for (const Scope scope : {Scope::Sample, Scope::Position, Scope::Causal}) {
    const Layout layout(at::zeros({scope == Scope::Sample ? 6 : 2, 3, 7}), scope, Order::Forward);
    const Mixture options{.held = 2, .newest = 1, .ridge = 1e-3, .decay = 0.9};
    const Tensor found = least_mixture(spoilt, layout, options);
    EXPECT_EQ(found.sizes(), (std::vector<int64_t>{6, 2}));
    EXPECT_TRUE(at::equal(found, least_mixture(whole, layout, options)));
    EXPECT_TRUE(found.isfinite().all().item<bool>());
  }
}

}  // namespace
}  // namespace deq::small
