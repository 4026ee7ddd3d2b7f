// The kernels' gradient of a weight against LibTorch's product, on random shapes.
#include "deq/ops/weight_gradient.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <random>

namespace {

using at::Tensor;
using deq::ops::weight_gradient;

struct Sample {
  Tensor dy, x;

  Sample(std::mt19937& random, at::ScalarType type) {
    const auto pick = [&](int64_t low, int64_t high) {
      return std::uniform_int_distribution<int64_t>(low, high)(random);
    };
    const int64_t rows = pick(0, 2) > 0 ? pick(1, 60) : pick(180, 500);
    // As it lies, columns of a wider matrix, or turned round.
    const auto matrix = [&](int64_t columns) {
      const auto options = at::TensorOptions().dtype(type);
      const int64_t kind = pick(0, 2);
      if (kind == 0) return at::randn({rows, columns}, options);
      if (kind == 1) return at::randn({rows, columns + 5}, options).narrow(1, 3, columns);
      return at::randn({columns, rows}, options).t();
    };
    dy = matrix(pick(1, 300));
    x = matrix(pick(1, 300));
  }
};

void compare(at::ScalarType type, double tolerance) {
  c10::NoGradGuard no_tape;
  std::mt19937 random(11);
  at::manual_seed(11);
  for (int trial = 0; trial < 80; ++trial) {
    const Sample s(random, type);
    const Tensor ours = weight_gradient(s.dy, s.x);
    const Tensor theirs = at::mm(s.dy.t().to(at::kDouble), s.x.to(at::kDouble));
    ASSERT_EQ(ours.sizes(), theirs.sizes());
    ASSERT_LT(((ours - theirs).norm() / theirs.norm()).item<double>(), tolerance)
        << s.dy.sizes() << " " << s.x.sizes();
  }
}

TEST(WeightGradient, AgreesWithTheReferenceInDouble) { compare(at::kDouble, 1e-14); }
TEST(WeightGradient, AgreesWithTheReferenceInFloat) { compare(at::kFloat, 1e-6); }

TEST(WeightGradient, DoesNotDependOnThreads) {
  c10::NoGradGuard no_tape;
  std::mt19937 random(13);
  at::manual_seed(13);
  const int threads = at::get_num_threads();
  for (int trial = 0; trial < 30; ++trial) {
    const Sample s(random, trial % 2 ? at::kFloat : at::kDouble);
    const Tensor usual = weight_gradient(s.dy, s.x);
    for (const int n : {1, 2, 5}) {
      at::set_num_threads(n);
      EXPECT_TRUE(at::equal(weight_gradient(s.dy, s.x), usual)) << n;
    }
    at::set_num_threads(threads);
  }
}

TEST(WeightGradient, OfNoRowsIsZero) {
  c10::NoGradGuard no_tape;
  const Tensor none = weight_gradient(at::zeros({0, 3}), at::zeros({0, 4}));
  EXPECT_TRUE(at::equal(none, at::zeros({3, 4})));
}

TEST(WeightGradient, IsDifferentiableWhereATapeIsRecorded) {
  const Tensor dy = at::randn({7, 3}, at::kDouble).requires_grad_(true);
  const Tensor x = at::randn({7, 4}, at::kDouble);
  weight_gradient(dy, x).sum().backward();
  EXPECT_TRUE(at::allclose(dy.grad(), x.sum(1, true).expand({7, 3})));
}

}  // namespace
