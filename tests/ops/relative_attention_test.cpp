// The CPU kernels against the reference, forward and backward, on random shapes; and twice
// differentiated.
#include "deq/ops/relative_attention.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <random>

namespace {

using at::Tensor;
using deq::ops::AttentionContext;
using deq::ops::AttentionView;

struct Sample {
  Tensor q, k, v;
  AttentionContext context;
  AttentionView view;
  std::vector<Tensor> inputs;  // those that need gradients

  Sample(std::mt19937& random, at::ScalarType type) {
    const auto pick = [&](int64_t low, int64_t high) {
      return std::uniform_int_distribution<int64_t>(low, high)(random);
    };
    const int64_t B = pick(1, 3), T = pick(1, 9), H = pick(1, 3), D = H * pick(1, 11),
                  M = pick(0, 2) * pick(0, 7);
    view = {H, pick(0, 2) > 0, pick(0, 1) * pick(1, 6)};
    const auto options = at::TensorOptions().dtype(type);
    const Tensor qkv = at::randn({B, T, 3 * D}, options).requires_grad_(true);
    inputs.push_back(qkv);
    const auto parts = qkv.chunk(3, 2);  // not contiguous, as the cell has them
    q = parts[0];
    k = parts[1];
    v = parts[2];
    const auto leaf = [&](at::IntArrayRef shape) {
      inputs.push_back(at::randn(shape, options).requires_grad_(true));
      return inputs.back();
    };
    if (M > 0) {
      context.past_k = leaf({B, M, D});
      context.past_v = leaf({B, M, D});
    }
    context.r = leaf({deq::ops::relative_rows(T, M, view.causal), D});
    context.content_bias = leaf({D});
    context.position_bias = leaf({D});
    if (pick(0, 1)) context.mask = at::rand({B, H, T, M + T}, options).gt(0.3).to(type) / 0.7;
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
    const Tensor ours = deq::ops::relative_attention(s.q, s.k, s.v, s.context, s.view);
    const Tensor plain = deq::ops::relative_attention_reference(s.q, s.k, s.v, s.context, s.view);
    ASSERT_LT(relative(ours, plain), tolerance);
    {
      c10::NoGradGuard no_tape;
      ASSERT_LT(relative(deq::ops::relative_attention(s.q, s.k, s.v, s.context, s.view), plain),
                tolerance);
    }
    const Tensor dy = at::randn_like(plain);
    const auto mine = torch::autograd::grad({ours}, s.inputs, {dy}, true, false, true);
    const auto theirs = torch::autograd::grad({plain}, s.inputs, {dy}, true, false, true);
    const auto only_state = torch::autograd::grad({ours}, {s.inputs[0]}, {dy}, true);
    ASSERT_LT(relative(only_state[0], theirs[0]), tolerance);
    for (size_t i = 0; i < mine.size(); ++i) {
      // A softmax over one key has gradients that are zero but for round-off.
      if (theirs[i].norm().item<double>() < 1e-3 * tolerance) continue;
      ASSERT_LT(
          ((mine[i] - theirs[i]).norm() / (theirs[i].norm() + theirs[0].norm())).item<double>(),
          tolerance)
          << i;
    }
  }
}

TEST(RelativeAttention, AgreesWithTheReferenceInDouble) { compare(at::kDouble, 1e-12); }
TEST(RelativeAttention, AgreesWithTheReferenceInFloat) { compare(at::kFloat, 2e-5); }

TEST(RelativeAttention, IsTwiceDifferentiable) {
  std::mt19937 random(3);
  at::manual_seed(3);
  for (int trial = 0; trial < 10; ++trial) {
    const Sample s(random, at::kDouble);
    const auto penalty = [&](const Tensor& y) {
      at::manual_seed(11);
      const Tensor probe = at::randn(y.sizes(), y.options().requires_grad(false));
      const auto first =
          torch::autograd::grad({y}, {s.inputs[0]}, {probe}, true, /*create_graph=*/true);
      return torch::autograd::grad({first[0].square().sum()}, {s.inputs[0]}, {}, true)[0];
    };
    const Tensor ours = penalty(deq::ops::relative_attention(s.q, s.k, s.v, s.context, s.view));
    const Tensor plain =
        penalty(deq::ops::relative_attention_reference(s.q, s.k, s.v, s.context, s.view));
    EXPECT_LT((ours - plain).norm().item<double>(), 1e-10 * (1 + plain.norm().item<double>()));
  }
}

TEST(RelativeAttention, DoesNotDependOnTheNumberOfThreads) {
  std::mt19937 random(5);
  const Sample s(random, at::kFloat);
  const int threads = at::get_num_threads();
  const auto run = [&](int n) {
    at::set_num_threads(n);
    const Tensor y = deq::ops::relative_attention(s.q, s.k, s.v, s.context, s.view);
    auto found = torch::autograd::grad({y.sum()}, s.inputs, {}, false, false, true);
    found.push_back(y);
    return found;
  };
  const auto one = run(1), two = run(2);
  at::set_num_threads(threads);
  for (size_t i = 0; i < one.size(); ++i) EXPECT_TRUE(at::equal(one[i], two[i])) << i;
}

}  // namespace
