// The fused step against its reference, forward and backward, on random shapes.
#include "deq/ops/trellis_step.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <limits>
#include <random>

#include "tests/base/scratch.h"

namespace {

using at::Tensor;
using deq::ops::TrellisContext;
using deq::ops::TrellisStep;

struct Sample {
  Tensor z;
  TrellisContext context;
  std::vector<Tensor> inputs;  // those that need gradients, z first

  Sample(std::mt19937& random, at::ScalarType type) {
    const auto pick = [&](int64_t low, int64_t high) {
      return std::uniform_int_distribution<int64_t>(low, high)(random);
    };
    const int64_t T = pick(0, 2) > 0 ? pick(1, 9) : pick(0, 1) ? 1 : pick(60, 140);
    const int64_t B = pick(1, 4), H = pick(1, 40), K = pick(1, 3), d = pick(1, 3);
    const auto options = at::TensorOptions().dtype(type);
    const auto leaf = [&](at::IntArrayRef shape, double scale) {
      inputs.push_back((at::randn(shape, options) * scale).requires_grad_(true));
      return inputs.back();
    };
    z = leaf({B, T, 2 * H}, 1);
    context.kernel = K;
    context.dilation = d;
    context.ahead = pick(0, 1) ? 0 : pick(0, K - 1);
    context.injected = leaf({B, T, 4 * H}, 1);
    context.weight = deq::ops::trellis_weight(leaf({4 * H, K * H}, 0.4), K);
    if (pick(0, 1)) context.hidden_mask = at::rand({B, 1, H}, options).gt(0.3).to(type) / 0.7;
    context.past = at::randn(
        {B, std::max<int64_t>(1, d * (K - 1 - context.ahead)) + pick(0, 2), 2 * H}, options);
  }
};

/// How many more of `left` positions are done now: where f looks ahead, all or none.
int64_t more_done(const Sample& s, int64_t left, int64_t most, std::mt19937& random) {
  if (s.context.ahead > 0) return random() % 4 == 0 ? left : 0;
  return std::uniform_int_distribution<int64_t>(0, most)(random);
}

double relative(const Tensor& a, const Tensor& b) {
  return ((a - b).norm() / (b.norm() + 1e-12)).item<double>();
}

void compare(at::ScalarType type, double tolerance) {
  std::mt19937 random(7);
  at::manual_seed(7);
  for (int trial = 0; trial < 80; ++trial) {
    SCOPED_TRACE(trial);
    const Sample s(random, type);
    const TrellisStep step(s.context);
    const Tensor ours = step(s.z), plain = deq::ops::trellis_step_reference(s.z, s.context);
    ASSERT_LT(relative(ours, plain), tolerance);
    {
      c10::NoGradGuard no_tape;
      ASSERT_TRUE(at::equal(step(s.z), ours));
    }
    const Tensor df = at::randn_like(plain);
    const auto mine = torch::autograd::grad({ours}, s.inputs, {df}, true);
    const auto theirs = torch::autograd::grad({plain}, s.inputs, {df}, true);
    const auto only_state = torch::autograd::grad({ours}, {s.z}, {df}, true);
    ASSERT_LT(relative(only_state[0], theirs[0]), tolerance);
    for (size_t i = 0; i < mine.size(); ++i)
      ASSERT_LT(relative(mine[i], theirs[i]), tolerance) << i;
  }
}

TEST(TrellisStep, AgreesWithTheReferenceInDouble) { compare(at::kDouble, 1e-12); }
TEST(TrellisStep, AgreesWithTheReferenceInFloat) { compare(at::kFloat, 1e-5); }

TEST(TrellisStep, Bfloat16WeightsAreTheSameAsRoundedOnes) {
  std::mt19937 random(29);
  at::manual_seed(29);
  c10::NoGradGuard no_tape;
  for (int trial = 0; trial < 60; ++trial) {
    SCOPED_TRACE(trial);
    const Sample s(random, trial % 3 ? at::kFloat : at::kDouble);
    const Tensor& weight = s.context.weight.weight;
    TrellisContext halved = s.context, rounded = s.context;
    halved.weight =
        deq::ops::trellis_weight(weight, s.context.kernel, deq::ops::WeightType::Bfloat16);
    rounded.weight = deq::ops::trellis_weight(weight.to(at::kBFloat16).to(weight.scalar_type()),
                                              s.context.kernel);
    const Tensor f = TrellisStep(halved)(s.z);
    EXPECT_TRUE(at::equal(f, TrellisStep(rounded)(s.z)));
    EXPECT_FALSE(at::equal(f, TrellisStep(s.context)(s.z)));
  }
}

TEST(TrellisStep, IsTwiceDifferentiable) {
  std::mt19937 random(3);
  at::manual_seed(3);
  const Sample s(random, at::kDouble);
  const auto penalty = [&](const Tensor& f) {
    const auto first = torch::autograd::grad({f.square().sum()}, {s.z}, {}, true, true);
    return torch::autograd::grad({first[0].square().sum()}, s.inputs, {}, true);
  };
  const auto ours = penalty(TrellisStep(s.context)(s.z));
  const auto plain = penalty(deq::ops::trellis_step_reference(s.z, s.context));
  for (size_t i = 0; i < ours.size(); ++i) EXPECT_LT(relative(ours[i], plain[i]), 1e-10) << i;
}

TEST(TrellisStep, TapedGradientsOfAChainCountEachPathOnce) {
  std::mt19937 random(29);
  at::manual_seed(29);
  for (int trial = 0; trial < 10; ++trial) {
    const Sample s(random, at::kDouble);
    const TrellisStep step(s.context);
    const Tensor y = step(step(step(s.z))), dy = at::randn_like(y);
    const auto plain = torch::autograd::grad({y}, s.inputs, {dy}, true);
    const auto taped = torch::autograd::grad({y}, s.inputs, {dy}, true, true);
    for (size_t i = 0; i < plain.size(); ++i) EXPECT_LT(relative(taped[i], plain[i]), 1e-10) << i;
  }
}

TEST(TrellisStep, GradientsReachThePastToo) {
  std::mt19937 random(4);
  at::manual_seed(4);
  Sample s(random, at::kDouble);
  s.context.past.requires_grad_(true);
  const auto ours = torch::autograd::grad({TrellisStep(s.context)(s.z).sum()}, {s.context.past});
  const auto plain = torch::autograd::grad({deq::ops::trellis_step_reference(s.z, s.context).sum()},
                                           {s.context.past});
  EXPECT_LT(relative(ours[0], plain[0]), 1e-12);
}

TEST(TrellisStep, WhatIsDoneIsLeftOut) {
  std::mt19937 random(17);
  at::manual_seed(17);
  c10::NoGradGuard no_tape;
  for (int trial = 0; trial < 60; ++trial) {
    SCOPED_TRACE(trial);
    const Sample s(random, at::kFloat);
    const TrellisStep step(s.context);
    const int64_t B = s.z.size(0), T = s.z.size(1);
    std::vector<int64_t> done(size_t(B), 0);
    Tensor z = s.z.detach();
    const deq::Map::Series series = step.map().series();
    for (int k = 0; k < 5; ++k) {
      ASSERT_TRUE(at::equal(series(z, done), step(z))) << k;
      z = z.clone();
      for (int64_t b = 0; b < B; ++b) {
        int64_t& d = done[size_t(b)];
        d += more_done(s, T - d, T - d, random);
        z[b].narrow(0, d, T - d).normal_();
      }
    }
  }
}

TEST(TrellisStep, ItsProductsLeaveOutWhatIsDone) {
  std::mt19937 random(19);
  at::manual_seed(19);
  for (int trial = 0; trial < 60; ++trial) {
    SCOPED_TRACE(trial);
    const Sample s(random, trial % 2 == 0 ? at::kFloat : at::kDouble);
    const TrellisStep step(s.context);
    const int64_t B = s.z.size(0), T = s.z.size(1);
    std::vector<int64_t> done(size_t(B), 0);
    const Tensor fz = step(s.z);
    const deq::Map::Linearised at_z = step.map().linearise(s.z);
    ASSERT_TRUE(at::equal(at_z.fz, fz));
    Tensor u = at::randn_like(fz);
    for (int k = 0; k < 5; ++k) {
      const Tensor plain = torch::autograd::grad({fz}, {s.z}, {u}, true)[0];
      ASSERT_TRUE(at::equal(at_z.transposed(u, done), plain)) << k;
      u = u.clone();
      for (int64_t b = 0; b < B; ++b) {
        int64_t& d = done[size_t(b)];
        d += more_done(s, T - d, (T - d) / 2, random);
        u[b].narrow(0, 0, T - d).normal_();
      }
    }
  }
}

TEST(TrellisStep, DoesNotDependOnTheNumberOfThreads) {
  std::mt19937 random(5);
  at::manual_seed(5);
  const int threads = at::get_num_threads();
  for (int trial = 0; trial < 20; ++trial) {
    const Sample s(random, at::kFloat);
    const auto run = [&](int n) {
      at::set_num_threads(n);
      const Tensor f = TrellisStep(s.context)(s.z);
      return std::vector<Tensor>{f, torch::autograd::grad({f.sum()}, {s.z})[0]};
    };
    const auto one = run(1), two = run(2);
    for (size_t i = 0; i < one.size(); ++i) EXPECT_TRUE(at::equal(one[i], two[i])) << i;
  }
  at::set_num_threads(threads);
}

TEST(TrellisStep, NumbersThatAreNoneOrLarge) {
  std::mt19937 random(9);
  at::manual_seed(9);
  const Sample s(random, at::kFloat);
  c10::NoGradGuard no_tape;
  const int64_t T = s.z.size(1), H = s.z.size(2) / 2;
  Tensor z = s.z.detach().clone();
  z[0][T - 1].narrow(0, 0, H).fill_(std::numeric_limits<float>::quiet_NaN());
  EXPECT_TRUE(TrellisStep(s.context)(z)[0][T - 1].isnan().all().item<bool>());
  TrellisContext large = s.context;
  for (const double size : {1e4, -1e4, 1e30, -1e30}) {
    large.injected = at::full_like(s.context.injected, size);
    EXPECT_LT(relative(TrellisStep(large)(s.z), deq::ops::trellis_step_reference(s.z, large)),
              1e-5);
  }
}

TEST(TrellisStep, ShapesThatDoNotFitAreErrors) {
  std::mt19937 random(13);
  at::manual_seed(13);
  const Sample s(random, at::kFloat);
  const auto refusal = [&](const TrellisContext& context, const Tensor& z) {
    return deq::testing::error_of([&] { TrellisStep{context}(z); });
  };
  EXPECT_SAYS(refusal(s.context, s.z[0]), "trellis_step: z is [");
  EXPECT_SAYS(refusal(s.context, s.z.to(at::kDouble)), "z is Double and the weight Float");
  TrellisContext bad = s.context;
  bad.weight.weight = bad.weight.weight.narrow(0, 0, 1);
  EXPECT_SAYS(refusal(bad, s.z), "trellis_step: weight is [1, ");
  bad = s.context;
  bad.kernel += 1;
  bad.weight.weight = at::zeros({4, bad.kernel});
  EXPECT_SAYS(refusal(bad, s.z), "a weight laid out for");
  bad = s.context;
  bad.ahead = bad.kernel;
  EXPECT_SAYS(refusal(bad, s.z), "trellis_step: ahead = ");
  bad = s.context;
  bad.injected = at::zeros({1, 1, 2});
  EXPECT_SAYS(refusal(bad, s.z), "trellis_step: injected is [1, 1, 2]");
  bad = s.context;
  bad.past = bad.past.narrow(1, 0, 0);
  EXPECT_SAYS(refusal(bad, s.z), "trellis_step: past is [");
  bad = s.context;
  bad.past = bad.past.to(at::kDouble);
  EXPECT_SAYS(refusal(bad, s.z), "what stands beside it Double");
}

}  // namespace
