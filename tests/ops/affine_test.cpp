// The kernels' affine map against LibTorch's, on random shapes, and the bits of its rows.
#include "deq/ops/affine.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <random>

#include "deq/base/error.h"

namespace {

using at::Tensor;
using deq::ops::affine;
using deq::ops::affine_weight;

struct Sample {
  std::vector<Tensor> inputs;  // x, weight, and a base where there is one

  Sample(std::mt19937& random, at::ScalarType type) {
    const auto pick = [&](int64_t low, int64_t high) {
      return std::uniform_int_distribution<int64_t>(low, high)(random);
    };
    const int64_t B = pick(1, 4), T = pick(0, 2) > 0 ? pick(1, 9) : pick(60, 140), k = pick(1, 70),
                  n = pick(1, 300);
    const auto leaf = [&](at::IntArrayRef shape) {
      inputs.push_back(at::randn(shape, at::TensorOptions().dtype(type)).requires_grad_(true));
    };
    leaf({B, T, k});
    leaf({n, k});
    if (const int64_t kind = pick(0, 2))
      leaf(kind == 1 ? at::IntArrayRef({n}) : at::IntArrayRef({B, T, n}));
  }
  Tensor base() const { return inputs.size() > 2 ? inputs[2] : Tensor(); }
  Tensor ours() const { return affine(inputs[0], affine_weight(inputs[1]), base()); }
  Tensor plain() const {
    const Tensor y = at::matmul(inputs[0], inputs[1].t());
    return base().defined() ? y + base() : y;
  }
};

double relative(const Tensor& a, const Tensor& b) {
  return ((a - b).norm() / (b.norm() + 1e-12)).item<double>();
}

void compare(at::ScalarType type, double tolerance) {
  std::mt19937 random(7);
  at::manual_seed(7);
  for (int trial = 0; trial < 60; ++trial) {
    SCOPED_TRACE(trial);
    const Sample s(random, type);
    const Tensor ours = s.ours(), plain = s.plain(), dy = at::randn_like(plain);
    ASSERT_LT(relative(ours, plain), tolerance);
    {
      c10::NoGradGuard no_tape;
      ASSERT_TRUE(at::equal(s.ours(), ours));
    }
    const auto mine = torch::autograd::grad({ours}, s.inputs, {dy}, true);
    const auto theirs = torch::autograd::grad({plain}, s.inputs, {dy}, true);
    for (size_t i = 0; i < mine.size(); ++i)
      ASSERT_LT(relative(mine[i], theirs[i]), tolerance) << i;
  }
}

TEST(Affine, AgreesWithTheReferenceInDouble) { compare(at::kDouble, 1e-13); }
TEST(Affine, AgreesWithTheReferenceInFloat) { compare(at::kFloat, 1e-5); }

TEST(Affine, IsTwiceDifferentiable) {
  std::mt19937 random(3);
  at::manual_seed(3);
  const Sample s(random, at::kDouble);
  const auto second = [&](const Tensor& y) {
    const auto first = torch::autograd::grad({y.square().sum()}, {s.inputs[0]}, {}, true, true);
    return torch::autograd::grad({first[0].square().sum()}, {s.inputs[1]}, {}, true)[0];
  };
  EXPECT_LT(relative(second(s.ours()), second(s.plain())), 1e-12);
}

TEST(Affine, ARowDependsNeitherOnOthersNorOnThreads) {
  std::mt19937 random(5);
  at::manual_seed(5);
  c10::NoGradGuard no_tape;
  const int threads = at::get_num_threads();
  for (int trial = 0; trial < 30; ++trial) {
    SCOPED_TRACE(trial);
    const Sample s(random, trial % 2 ? at::kFloat : at::kDouble);
    const Tensor whole = s.ours();
    const int64_t T = whole.size(1);
    for (const int n : {1, 2}) {
      at::set_num_threads(n);
      for (const int64_t rows : {int64_t(1), (T + 1) / 2, T}) {
        const Tensor base =
            s.base().defined() && s.base().dim() == 3 ? s.base().narrow(1, 0, rows) : s.base();
        const Tensor part =
            affine(s.inputs[0].narrow(1, 0, rows), affine_weight(s.inputs[1]), base);
        EXPECT_TRUE(at::equal(part, whole.narrow(1, 0, rows))) << rows;
      }
    }
    at::set_num_threads(threads);
  }
}

TEST(Affine, RefusesWhatDoesNotFit) {
  const auto weight = affine_weight(at::zeros({4, 3}));
  EXPECT_THROW(affine(at::zeros({1, 2, 5}), weight, {}), deq::Error);
  EXPECT_THROW(affine(at::zeros({1, 2, 3}), weight, at::zeros({3})), deq::Error);
  EXPECT_THROW(affine(at::zeros({1, 2, 3}, at::kDouble), weight, {}), deq::Error);
  EXPECT_EQ(affine(at::zeros({0, 2, 3}), weight, {}).sizes(), (std::vector<int64_t>{0, 2, 4}));
}

}  // namespace
