// The CPU kernels against the reference, forward and backward, on random shapes; and twice
// differentiated.
#include "deq/ops/relative_attention.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <limits>
#include <random>

#include "tests/base/scratch.h"

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
    const int64_t longest = pick(0, 2) > 0 ? 9 : 150;  // of several blocks of queries, at times
    const int64_t B = pick(1, 3), T = pick(1, longest), H = pick(1, 3), D = H * pick(1, 35),
                  M = pick(0, 2) * pick(0, longest);
    view = {H, pick(0, 2) > 0, pick(0, 1) * pick(1, longest)};
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
      if (pick(0, 2) == 0) context.hidden.resize(size_t(B));
      for (int64_t& hidden : context.hidden) hidden = pick(0, M);
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

TEST(RelativeAttention, TapedGradientsOfInputsThatDependOnEachOtherCountEachPathOnce) {
  std::mt19937 random(29);
  at::manual_seed(29);
  for (int trial = 0; trial < 10; ++trial) {
    const Sample s(random, at::kDouble);
    const Tensor k = s.k * s.q.sum(), v = s.v + s.q;
    const Tensor y = deq::ops::relative_attention(s.q, k, v, s.context, s.view);
    const Tensor dy = at::randn_like(y);
    const Tensor plain = torch::autograd::grad({y}, {s.inputs[0]}, {dy}, true)[0];
    const Tensor taped = torch::autograd::grad({y}, {s.inputs[0]}, {dy}, true, true)[0];
    EXPECT_LT(relative(taped, plain), 1e-9);
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

/// Both, since what one of them accepts the other must.
std::string refusal(const Sample& s) {
  const std::string message = deq::testing::error_of(
      [&] { deq::ops::relative_attention(s.q, s.k, s.v, s.context, s.view); });
  EXPECT_EQ(message, deq::testing::error_of([&] {
              deq::ops::relative_attention_reference(s.q, s.k, s.v, s.context, s.view);
            }));
  return message;
}

TEST(RelativeAttention, ShapesThatDoNotFitAreErrors) {
  std::mt19937 random(13);
  const Sample any(random, at::kFloat);
  Sample good = any;  // B = 2, T = 3, M = 4, D = 6, 2 heads
  good.view = {.heads = 2};
  good.q = good.k = good.v = at::randn({2, 3, 6});
  good.context = {at::randn({2, 4, 6}), at::randn({2, 4, 6}), at::randn({7, 6}),
                  at::randn({6}),       at::randn({6}),       at::ones({2, 2, 3, 7})};
  EXPECT_EQ(deq::ops::relative_attention(good.q, good.k, good.v, good.context, good.view).sizes(),
            good.q.sizes());
  const auto with = [&](auto&& change) {
    Sample bad = good;
    change(bad);
    return refusal(bad);
  };
  EXPECT_SAYS(with([](Sample& s) { s.q = s.q[0]; }), "q has 2 dimensions");
  EXPECT_SAYS(with([](Sample& s) { s.k = s.k.narrow(1, 0, 2); }), "k is [2, 2, 6]");
  EXPECT_SAYS(with([](Sample& s) { s.v = s.v.narrow(0, 0, 1); }), "v is [1, 3, 6]");
  EXPECT_SAYS(with([](Sample& s) { s.view.heads = 4; }), "6 features in 4 heads");
  EXPECT_SAYS(with([](Sample& s) { s.view.heads = 0; }), "6 features in 0 heads");
  EXPECT_SAYS(with([](Sample& s) { s.view.window = -1; }), "window = -1");
  EXPECT_SAYS(with([](Sample& s) { s.context.past_v = Tensor(); }), "past_k alone");
  EXPECT_SAYS(with([](Sample& s) { s.context.hidden = {1}; }), "hidden of 1 samples; expected 2");
  EXPECT_SAYS(with([](Sample& s) { s.context.hidden = {0, 5}; }), "hidden = 5; expected 0 to 4");
  EXPECT_SAYS(with([](Sample& s) { s.context.past_v = s.context.past_v.narrow(1, 0, 3); }),
              "past_v is [2, 3, 6]; expected [2, 4, 6]");
  EXPECT_SAYS(with([](Sample& s) { s.context.past_k = s.context.past_k.narrow(0, 0, 1); }),
              "past_k is [1, 4, 6]");
  EXPECT_SAYS(with([](Sample& s) { s.context.r = s.context.r.narrow(0, 0, 6); }),
              "r is [6, 6]; expected [7, 6]");
  EXPECT_SAYS(with([](Sample& s) { s.context.r = Tensor(); }), "r is undefined");
  EXPECT_SAYS(with([](Sample& s) { s.view.causal = false; }), "r is [7, 6]; expected [9, 6]");
  EXPECT_SAYS(with([](Sample& s) { s.context.content_bias = at::ones({3}); }), "content_bias");
  EXPECT_SAYS(with([](Sample& s) { s.context.position_bias = at::ones({6, 1}); }), "position_bias");
  EXPECT_SAYS(with([](Sample& s) {
                s.context.mask = at::ones({2, 2, 1, 7});
              }),
              "mask is [2, 2, 1, 7]; expected [2, 2, 3, 7]");
}

TEST(RelativeAttention, TakesAnyStrides) {
  at::manual_seed(17);
  for (const int64_t T : {1, 4}) {
    const int64_t B = 3, D = 8, M = 2;
    const auto options = at::TensorOptions().dtype(at::kDouble);
    const Tensor turned = at::randn({T, D, B}, options).permute({2, 0, 1});  // strides 1, D B, B
    const Tensor swapped = at::randn({B, D, T}, options).transpose(1, 2);  // at T = 1 "contiguous"
    const Tensor repeated = at::randn({B, 1, D}, options).expand({B, T, D});
    const Tensor past = at::randn({B, 1, D}, options).expand({B, M, D});
    const Tensor r = at::randn({1, D}, options).expand({M + T, D});
    const Tensor bias = at::randn({1}, options).expand({D});
    const AttentionContext context{past, past, r, bias, bias, {}};
    const AttentionView view{.heads = 2};
    for (const Tensor& from : {turned, swapped, repeated}) {
      const Tensor q = from.detach().requires_grad_(true);
      ASSERT_EQ(q.strides(), from.strides());
      const Tensor ours = deq::ops::relative_attention(q, q, q, context, view);
      const Tensor plain = deq::ops::relative_attention_reference(q, q, q, context, view);
      EXPECT_LT(relative(ours, plain), 1e-12);
      for (const Tensor& dy : {turned, swapped, repeated}) {
        EXPECT_LT(relative(torch::autograd::grad({ours}, {q}, {dy}, true)[0],
                           torch::autograd::grad({plain}, {q}, {dy}, true)[0]),
                  1e-12);
      }
    }
  }
}

TEST(RelativeAttention, AWindowOfAnySizeIsAWindow) {
  at::manual_seed(19);
  const int64_t T = 5, M = 3, D = 4;
  for (const bool causal : {true, false}) {
    const Tensor q = at::randn({2, T, D}), past = at::randn({2, M, D});
    const Tensor r = at::randn({deq::ops::relative_rows(T, M, causal), D}), bias = at::randn({D});
    const AttentionContext context{past, past, r, bias, bias, {}};
    const auto seen = [&](int64_t window) {
      return deq::ops::relative_attention(q, q, q, context, {2, causal, window});
    };
    for (const int64_t window : {int64_t{T + M}, std::numeric_limits<int64_t>::max() - 1,
                                 std::numeric_limits<int64_t>::max()}) {
      EXPECT_TRUE(at::equal(seen(window), seen(0))) << causal << " " << window;
    }
  }
}

TEST(RelativeAttention, APastWithoutPositionsIsNone) {
  at::manual_seed(23);
  const Tensor q = at::randn({2, 3, 4}).requires_grad_(true), bias = at::randn({4});
  const Tensor none = at::empty({2, 0, 4}), r = at::randn({3, 4});
  const AttentionView view{.heads = 2};
  const AttentionContext without{{}, {}, r, bias, bias, {}}, empty{none, none, r, bias, bias, {}};
  const Tensor expected = deq::ops::relative_attention(q, q, q, without, view);
  const Tensor found = deq::ops::relative_attention(q, q, q, empty, view);
  EXPECT_TRUE(at::equal(found, expected));
  EXPECT_TRUE(at::equal(torch::autograd::grad({found.sum()}, {q})[0],
                        torch::autograd::grad({expected.sum()}, {q})[0]));
  EXPECT_LT(relative(deq::ops::relative_attention_reference(q, q, q, empty, view), expected), 1e-5);
}

TEST(RelativeAttention, OfAGridMeetsEachPlaceAtItsRowsAndColumns) {
  at::manual_seed(23);
  const int64_t rows = 3, columns = 4, T = rows * columns, H = 2, d = 5, D = H * d;
  const AttentionView view{.heads = H, .causal = false, .columns = columns};
  EXPECT_EQ(deq::ops::relative_rows(T, 0, view), 5 + 7);
  const auto draw = [](at::IntArrayRef shape) { return at::randn(shape, at::kDouble); };
  const Tensor q = draw({1, T, D}), k = draw({1, T, D}), v = draw({1, T, D});
  AttentionContext context{
      .r = draw({12, D}), .content_bias = draw({D}), .position_bias = draw({D})};
  const Tensor y = deq::ops::relative_attention(q, k, v, context, view);
  for (int64_t i = 0; i < T; ++i) {
    for (int64_t head = 0; head < H; ++head) {
      const auto of = [&](const Tensor& t) { return t.narrow(-1, head * d, d); };
      std::vector<double> scores;
      for (int64_t j = 0; j < T; ++j) {
        const int64_t down = i / columns - j / columns, right = i % columns - j % columns;
        const Tensor r = context.r[rows - 1 - down] + context.r[5 + columns - 1 - right];
        const Tensor content = of(q[0][i] + context.content_bias).dot(of(k[0][j]));
        const Tensor position = of(q[0][i] + context.position_bias).dot(of(r));
        scores.push_back((content + position).item<double>() / std::sqrt(double(d)));
      }
      const Tensor expected = at::matmul(at::tensor(scores, at::kDouble).softmax(0), of(v[0]));
      EXPECT_LT((of(y[0][i]) - expected).abs().max().item<double>(), 1e-12);
    }
  }
  AttentionView wrong = view;
  wrong.columns = 5;
  EXPECT_SAYS(
      deq::testing::error_of([&] { deq::ops::relative_attention(q, k, v, context, wrong); }),
      "12 places in rows of 5");
}

}  // namespace
