// The fused block against its reference, forward and backward, on random shapes, norms and masks.
#include "deq/ops/transformer_block.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <functional>
#include <limits>
#include <random>

#include "deq/ops/transformer_composed.h"
#include "tests/base/scratch.h"

namespace {

using at::Tensor;
using deq::ops::BlockContext;
using deq::ops::NormPlace;
using deq::ops::TransformerBlock;

struct Sample {
  Tensor z;
  BlockContext context;
  std::vector<Tensor> inputs;  // those that need gradients, z first

  /// `scale` times as wide as to be quick to test.
  Sample(std::mt19937& random, at::ScalarType type, int64_t scale = 1) {
    const auto pick = [&](int64_t low, int64_t high) {
      return std::uniform_int_distribution<int64_t>(low, high)(random);
    };
    const int64_t longest = pick(0, 2) > 0 ? 9 : 120;
    const int64_t B = pick(1, 3), T = pick(1, longest), H = pick(1, 3), D = H * scale * pick(2, 15),
                  I = scale * pick(1, 70), M = pick(0, 1) * pick(0, longest);
    const auto options = at::TensorOptions().dtype(type);
    const auto leaf = [&](at::IntArrayRef shape, double scale) {
      inputs.push_back((at::randn(shape, options) * scale).requires_grad_(true));
      return inputs.back();
    };
    z = leaf({B, T, D}, 1);
    BlockContext& c = context;
    c.norm = NormPlace(pick(0, 2));
    c.view = {H, pick(0, 2) > 0, pick(0, 1) * pick(1, longest)};
    c.weights = deq::ops::block_weights({.qkv = leaf({3 * D, D}, 0.3),
                                         .output = leaf({D, D}, 0.3),
                                         .output_bias = leaf({D}, 1),
                                         .inner = leaf({I, D}, 0.3),
                                         .inner_bias = leaf({I}, 1),
                                         .outer = leaf({D, I}, 0.3),
                                         .outer_bias = leaf({D}, 1)});
    if (pick(0, 2) > 0) c.injected = leaf({B, T, 3 * D}, 1);
    if (M > 0) {
      c.attention.past_k = leaf({B, M, D}, 1);
      c.attention.past_v = leaf({B, M, D}, 1);
    }
    c.attention.r = leaf({deq::ops::relative_rows(T, M, c.view.causal), D}, 1);
    c.attention.content_bias = leaf({D}, 1);
    c.attention.position_bias = leaf({D}, 1);
    const auto mask = [&](at::IntArrayRef shape) {
      return pick(0, 1) ? at::rand(shape, options).gt(0.3).to(type) / 0.7 : Tensor();
    };
    c.attention.mask = mask({B, H, T, M + T});
    c.output_mask = mask({B, 1, D});
    c.inner_mask = mask({B, 1, I});
    c.outer_mask = mask({B, 1, D});
  }
};

double relative(const Tensor& a, const Tensor& b) {
  return ((a - b).norm() / (b.norm() + 1e-12)).item<double>();
}

/// Ways to evaluate a block: the kernels', and that of a GPU, which runs anywhere.
using Evaluate = std::function<Tensor(const Sample&)>;
Tensor by_kernels(const Sample& s) { return TransformerBlock(s.context)(s.z); }
Tensor composed(const Sample& s) {
  return deq::ops::ComposedBlock(s.context, s.z.size(1))(s.context, s.z);
}

/// Without a tape the kernels give the same bits as with one; LibTorch's operators round otherwise.
void compare(const Evaluate& block, at::ScalarType type, double tolerance, bool same_bits) {
  std::mt19937 random(7);
  at::manual_seed(7);
  for (int trial = 0; trial < 60; ++trial) {
    SCOPED_TRACE(trial);
    const Sample s(random, type);
    const Tensor ours = block(s);
    const Tensor plain = deq::ops::transformer_block_reference(s.z, s.context);
    ASSERT_LT(relative(ours, plain), tolerance);
    {
      c10::NoGradGuard no_tape;
      const Tensor again = block(s);
      ASSERT_TRUE(same_bits ? at::equal(again, ours) : relative(again, ours) < tolerance);
    }
    const Tensor df = at::randn_like(plain);
    const auto mine = torch::autograd::grad({ours}, s.inputs, {df}, true, false, true);
    const auto theirs = torch::autograd::grad({plain}, s.inputs, {df}, true, false, true);
    const auto only_state = torch::autograd::grad({ours}, {s.z}, {df}, true);
    ASSERT_LT(relative(only_state[0], theirs[0]), tolerance);
    for (size_t i = 0; i < mine.size(); ++i) {
      // Some gradients are zero but for round-off: a softmax over one key, two features normalised.
      const double scale = theirs[i].norm().item<double>() + df.norm().item<double>();
      ASSERT_LT((mine[i] - theirs[i]).norm().item<double>() / scale, tolerance) << i;
    }
  }
}

TEST(TransformerBlock, AgreesWithTheReferenceInDouble) {
  compare(by_kernels, at::kDouble, 1e-11, true);
}
TEST(TransformerBlock, AgreesWithTheReferenceInFloat) {
  compare(by_kernels, at::kFloat, 3e-4, true);
}
TEST(TransformerBlock, ComposedItAgreesInDouble) { compare(composed, at::kDouble, 1e-11, false); }
TEST(TransformerBlock, ComposedItAgreesInFloat) { compare(composed, at::kFloat, 3e-4, false); }

/// Evaluations of one solve in which the states of ever more positions stay as they are.
void leave_out(at::ScalarType type) {
  std::mt19937 random(17);
  at::manual_seed(17);
  c10::NoGradGuard no_tape;
  for (int trial = 0; trial < 60; ++trial) {
    SCOPED_TRACE(trial);
    const Sample s(random, type);
    const TransformerBlock block(s.context);
    const int64_t B = s.z.size(0), T = s.z.size(1);
    std::vector<int64_t> done(size_t(B), 0);
    Tensor z = s.z.detach();
    const deq::Map::Series series = block.map().series();
    for (int step = 0; step < 6; ++step) {
      ASSERT_TRUE(at::equal(series(z, done), block(z))) << step;
      z = z.clone();
      for (int64_t b = 0; b < B; ++b) {
        int64_t& d = done[size_t(b)];
        const int64_t more = std::uniform_int_distribution<int64_t>(0, T - d)(random);
        // What is not causal depends on all positions.
        d = s.context.view.causal ? d + more / 2 : (more == 0 ? T : d);
        z[b].narrow(0, d, T - d).normal_();
      }
    }
  }
}

TEST(TransformerBlock, WhatIsDoneIsLeftOutInDouble) { leave_out(at::kDouble); }
TEST(TransformerBlock, WhatIsDoneIsLeftOutInFloat) { leave_out(at::kFloat); }

/// Products of one adjoint solve in which the last positions stay as they are, ever more of them.
void leave_out_backward(at::ScalarType type) {
  std::mt19937 random(19);
  at::manual_seed(19);
  for (int trial = 0; trial < 60; ++trial) {
    SCOPED_TRACE(trial);
    const Sample s(random, type);
    const TransformerBlock block(s.context);
    const int64_t B = s.z.size(0), T = s.z.size(1);
    std::vector<int64_t> done(size_t(B), 0);
    const Tensor fz = block(s.z);
    const deq::Map::Linearised at_z = block.map().linearise(s.z);
    ASSERT_TRUE(at::equal(at_z.fz, fz));
    Tensor u = at::randn_like(fz);
    for (int step = 0; step < 6; ++step) {
      const Tensor plain = torch::autograd::grad({fz}, {s.z}, {u}, true)[0];
      ASSERT_TRUE(at::equal(at_z.transposed(u, done), plain)) << step;
      u = u.clone();
      for (int64_t b = 0; b < B; ++b) {
        int64_t& d = done[size_t(b)];
        const int64_t more = std::uniform_int_distribution<int64_t>(0, T - d)(random);
        d = s.context.view.causal ? d + more / 2 : (more == 0 ? T : d);
        u[b].narrow(0, 0, T - d).normal_();
      }
    }
    const auto mine = torch::autograd::grad({at_z.fz}, s.inputs, {u}, false, false, true);
    const auto plain = torch::autograd::grad({fz}, s.inputs, {u}, false, false, true);
    for (size_t i = 0; i < mine.size(); ++i)
      ASSERT_TRUE(!mine[i].defined() || at::equal(mine[i], plain[i])) << i;
  }
}

TEST(TransformerBlock, ItsProductsLeaveOutWhatIsDoneInDouble) { leave_out_backward(at::kDouble); }
TEST(TransformerBlock, ItsProductsLeaveOutWhatIsDoneInFloat) { leave_out_backward(at::kFloat); }

TEST(TransformerBlock, IsTwiceDifferentiable) {
  std::mt19937 random(3);
  at::manual_seed(3);
  for (int trial = 0; trial < 10; ++trial) {
    const Sample s(random, at::kDouble);
    const auto penalty = [&](const Tensor& f) {
      at::manual_seed(11);
      const Tensor probe = at::randn(f.sizes(), f.options().requires_grad(false));
      const auto first = torch::autograd::grad({f}, {s.z}, {probe}, true, /*create_graph=*/true);
      return torch::autograd::grad({first[0].square().sum()}, s.inputs, {}, true, false, true);
    };
    const auto ours = penalty(TransformerBlock(s.context)(s.z));
    const auto plain = penalty(deq::ops::transformer_block_reference(s.z, s.context));
    for (size_t i = 0; i < ours.size(); ++i) {
      ASSERT_EQ(ours[i].defined(), plain[i].defined());
      if (!ours[i].defined()) continue;
      EXPECT_LT((ours[i] - plain[i]).norm().item<double>(),
                1e-9 * (1 + plain[i].norm().item<double>()));
    }
  }
}

// The second evaluation's input depends on the first one's weights, and the past on them too.
TEST(TransformerBlock, TapedGradientsOfAChainCountEachPathOnce) {
  std::mt19937 random(29);
  at::manual_seed(29);
  for (int trial = 0; trial < 20; ++trial) {
    SCOPED_TRACE(trial);
    Sample s(random, at::kDouble);
    if (s.context.attention.past_k.defined()) {
      s.context.attention.past_k = s.context.attention.past_k * s.context.weights.qkv.sum();
      s.context.attention.past_v = s.context.attention.past_v * s.context.weights.qkv.mean();
    }
    const TransformerBlock block(s.context);
    const Tensor y = block(block(s.z)), dy = at::randn_like(y);
    const auto plain = torch::autograd::grad({y}, s.inputs, {dy}, true, false, true);
    const auto taped = torch::autograd::grad({y}, s.inputs, {dy}, true, true, true);
    for (size_t i = 0; i < plain.size(); ++i) {
      ASSERT_EQ(taped[i].defined(), plain[i].defined());
      if (!plain[i].defined()) continue;
      EXPECT_LT((taped[i] - plain[i]).norm().item<double>(),
                1e-9 * (1 + plain[i].norm().item<double>()))
          << i;
    }
  }
}

TEST(TransformerBlock, DoesNotDependOnTheNumberOfThreads) {
  std::mt19937 random(5);
  at::manual_seed(5);
  const int threads = at::get_num_threads();
  for (int trial = 0; trial < 10; ++trial) {
    const Sample s(random, at::kFloat);
    const auto run = [&](int n) {
      at::set_num_threads(n);
      const Tensor f = TransformerBlock(s.context)(s.z);
      return std::vector<Tensor>{f, torch::autograd::grad({f.sum()}, {s.z})[0]};
    };
    const auto one = run(1), two = run(2);
    for (size_t i = 0; i < one.size(); ++i) EXPECT_TRUE(at::equal(one[i], two[i])) << i;
  }
  at::set_num_threads(threads);
}

// Of few rows it is columns that are shared among threads, where weights are large enough.
TEST(TransformerBlock, ARowAloneIsThatOfMany) {
  std::mt19937 random(23);
  at::manual_seed(23);
  c10::NoGradGuard no_tape;
  const int threads = at::get_num_threads();
  for (int trial = 0; trial < 20; ++trial) {
    SCOPED_TRACE(trial);
    const Sample s(random, trial % 2 ? at::kFloat : at::kDouble, 4);
    if (!s.context.view.causal) continue;
    const int64_t T = s.z.size(1), rows = std::min<int64_t>(T, 1 + trial % 7);
    const Tensor whole = TransformerBlock(s.context)(s.z);
    for (const int n : {1, 2}) {
      at::set_num_threads(n);
      const deq::Map::Series series = TransformerBlock(s.context).map().series();
      series(s.z, {});
      Tensor z = s.z.detach().clone();
      z.narrow(1, T - rows, rows).zero_();
      series(z, std::vector<int64_t>(size_t(z.size(0)), T - rows));
      EXPECT_TRUE(at::equal(series(s.z, std::vector<int64_t>(size_t(z.size(0)), T - rows)), whole));
    }
  }
  at::set_num_threads(threads);
}

TEST(TransformerBlock, Bfloat16WeightsAreTheSameAsRoundedOnes) {
  std::mt19937 random(29);
  at::manual_seed(29);
  c10::NoGradGuard no_tape;
  for (int trial = 0; trial < 60; ++trial) {
    SCOPED_TRACE(trial);
    const Sample s(random, trial % 3 ? at::kFloat : at::kDouble, trial % 2 ? 1 : 4);
    using deq::ops::WeightType;
    BlockContext halved = s.context, rounded = s.context;
    halved.weights = deq::ops::block_weights(s.context.weights, WeightType::Bfloat16);
    deq::ops::BlockWeights w = s.context.weights;
    for (Tensor* weight : {&w.qkv, &w.output, &w.inner, &w.outer})
      *weight = weight->to(at::kBFloat16).to(weight->scalar_type());
    rounded.weights = deq::ops::block_weights(w);
    const Tensor f = TransformerBlock(halved)(s.z);
    EXPECT_TRUE(at::equal(f, TransformerBlock(rounded)(s.z)));
    EXPECT_FALSE(at::equal(f, TransformerBlock(s.context)(s.z)));
  }
}

TEST(TransformerBlock, ANumberThatIsNoneStaysOne) {
  std::mt19937 random(9);
  at::manual_seed(9);
  const Sample s(random, at::kFloat);
  c10::NoGradGuard no_tape;
  Tensor z = s.z.detach().clone();
  z[0][z.size(1) - 1] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(TransformerBlock(s.context)(z)[0][z.size(1) - 1].isnan().all().item<bool>());
}

TEST(TransformerBlock, ShapesThatDoNotFitAreErrors) {
  std::mt19937 random(13);
  at::manual_seed(13);
  const Sample s(random, at::kFloat);
  const int64_t D = s.z.size(2);
  const auto refusal = [&](const BlockContext& context, const Tensor& z) {
    return deq::testing::error_of([&] { TransformerBlock{context}(z); });
  };
  EXPECT_SAYS(refusal(s.context, s.z[0]), "transformer_block: z is [");
  EXPECT_SAYS(refusal(s.context, s.z.to(at::kDouble)), "z is Double and the weights Float");
  BlockContext bad = s.context;
  bad.weights.outer = bad.weights.outer.t();
  EXPECT_SAYS(refusal(bad, s.z), "transformer_block: outer is [");
  bad = s.context;
  bad.injected = at::zeros({1, 1, D});
  EXPECT_SAYS(refusal(bad, s.z), "transformer_block: injected is [1, 1");
  bad = s.context;
  bad.attention.r = bad.attention.r.narrow(0, 0, 0);
  EXPECT_SAYS(refusal(bad, s.z), "relative_attention: r is [0");
}

}  // namespace
