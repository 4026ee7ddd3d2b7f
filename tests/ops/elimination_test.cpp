#include "deq/ops/elimination.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace deq {
namespace {

using at::Tensor;

Tensor randn(std::vector<int64_t> sizes, double std = 1) {
  return std * at::randn(sizes, at::kDouble);
}

TEST(Elimination, InversesAndMaskedSystemsAreThoseOfLapack) {
  at::manual_seed(2);
  const Tensor M = randn({4, 13, 13});
  EXPECT_LT((ops::inverse(M) - at::inverse(M)).abs().max().item<double>(), 1e-10);
  EXPECT_FALSE(ops::inverse(at::zeros({2, 2}, at::kDouble)).isfinite().all().item<bool>());
  const Tensor W = randn({13, 13}, 0.3), B = randn({6, 13});
  const Tensor D = at::rand({6, 13}, at::kDouble) * at::rand({6, 13}, at::kDouble).gt(0.4);
  EXPECT_LT((ops::solve_masked(W, D, B) - ops::solve_masked_reference(W, D, B))
                .abs()
                .max()
                .item<double>(),
            1e-11);
  const double norm = std::get<1>(at::svd(W)).max().item<double>();
  EXPECT_NEAR(ops::largest_singular_value(W), norm, 0.05 * norm);
}

}  // namespace
}  // namespace deq
