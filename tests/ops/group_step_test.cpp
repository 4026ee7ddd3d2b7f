// The fused step against its reference, forward and backward, on random shapes.
#include "deq/ops/group_step.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <random>

#include "tests/base/scratch.h"

namespace {

using at::Tensor;
using deq::ops::GroupContext;
using deq::ops::Grouping;
using deq::ops::GroupStep;

struct Sample {
  Tensor z;
  GroupContext context;
  std::vector<Tensor> inputs;  // those that need gradients, z first

  Sample(std::mt19937& random, at::ScalarType type) {
    const auto pick = [&](int64_t low, int64_t high) {
      return std::uniform_int_distribution<int64_t>(low, high)(random);
    };
    const int64_t B = pick(1, 4), P = pick(1, 20), S = pick(1, 10), w = pick(2, 40),
                  I = pick(1, 70), K = pick(0, 3);
    const auto options = at::TensorOptions().dtype(type);
    const auto leaf = [&](at::IntArrayRef shape, double scale) {
      inputs.push_back((at::randn(shape, options) * scale).requires_grad_(true));
      return inputs.back();
    };
    z = leaf({B, P, S, w}, 1);
    context.own = leaf({I, w}, 0.4);
    context.place = leaf({I, w}, 0.4);
    context.kinds = leaf({K, I, w}, 0.4);
    context.output = leaf({w, I}, 0.4);
    context.injected = leaf({B, P, S, I}, 1);
    for (int64_t k = 0; k < K; ++k) {
      context.groupings.emplace_back();
      for (int64_t n = pick(1, 2); n > 0; --n) {
        Grouping grouping{.count = pick(1, 5)};  // some groups may be of no places
        for (int64_t p = 0; p < P; ++p) grouping.group.push_back(pick(-1, grouping.count - 1));
        context.groupings.back().push_back(grouping);
      }
    }
  }
};

double relative(const Tensor& a, const Tensor& b) {
  return ((a - b).norm() / (b.norm() + 1e-12)).item<double>();
}

void compare(at::ScalarType type, double tolerance) {
  std::mt19937 random(7);
  at::manual_seed(7);
  for (int trial = 0; trial < 80; ++trial) {
    SCOPED_TRACE(trial);
    const Sample s(random, type);
    const GroupStep step(s.context);
    const Tensor ours = step(s.z), plain = deq::ops::group_step_reference(s.z, s.context);
    ASSERT_LT(relative(ours, plain), tolerance);
    {
      c10::NoGradGuard no_tape;
      ASSERT_TRUE(at::equal(step(s.z), ours));
    }
    const Tensor df = at::randn_like(plain);
    const auto mine = torch::autograd::grad({ours}, s.inputs, {df}, true);
    const auto theirs = torch::autograd::grad({plain}, s.inputs, {df}, true, false, true);
    const auto only_state = torch::autograd::grad({ours}, {s.z}, {df}, true);
    ASSERT_LT(relative(only_state[0], theirs[0]), tolerance);
    for (size_t i = 0; i < mine.size(); ++i) {
      if (!theirs[i].defined()) continue;
      ASSERT_LT(relative(mine[i], theirs[i]), tolerance) << i;
    }
  }
}

TEST(GroupStep, AgreesWithTheReferenceInDouble) { compare(at::kDouble, 1e-12); }
TEST(GroupStep, AgreesWithTheReferenceInFloat) { compare(at::kFloat, 2e-5); }

TEST(GroupStep, IsTwiceDifferentiable) {
  std::mt19937 random(5);
  at::manual_seed(5);
  const Sample s(random, at::kDouble);
  const auto penalty = [&](const Tensor& f) {
    const auto first = torch::autograd::grad({f.pow(3).sum()}, {s.z}, {}, true, true);
    return torch::autograd::grad({first[0].square().sum()}, s.inputs, {}, true, false, true);
  };
  const auto ours = penalty(GroupStep(s.context)(s.z));
  const auto plain = penalty(deq::ops::group_step_reference(s.z, s.context));
  for (size_t i = 0; i < ours.size(); ++i) {
    if (!plain[i].defined()) continue;
    EXPECT_LT(relative(ours[i], plain[i]), 1e-10) << i;
  }
}

TEST(GroupStep, ASampleDependsNeitherOnThoseBesideItNorOnThreads) {
  std::mt19937 random(11);
  at::manual_seed(11);
  c10::NoGradGuard no_tape;
  const int threads = at::get_num_threads();
  for (int trial = 0; trial < 20; ++trial) {
    const Sample s(random, at::kFloat);
    at::set_num_threads(2);
    const Tensor all = GroupStep(s.context)(s.z);
    at::set_num_threads(1);
    for (int64_t b = 0; b < all.size(0); ++b) {
      GroupContext alone = s.context;
      alone.injected = alone.injected.narrow(0, b, 1);
      EXPECT_TRUE(at::equal(GroupStep(alone)(s.z.narrow(0, b, 1))[0], all[b]));
    }
  }
  at::set_num_threads(threads);
}

TEST(GroupStep, ASolveLeavesOutSamplesThatAreDone) {
  std::mt19937 random(13);
  at::manual_seed(13);
  for (int trial = 0; trial < 20; ++trial) {
    SCOPED_TRACE(trial);
    const Sample s(random, at::kDouble);
    const int64_t B = s.z.size(0), P = s.z.size(1);
    const deq::Map f = GroupStep(s.context).map();
    const Tensor first = s.z.detach();
    Tensor second = at::randn_like(first);
    second[0].copy_(first[0]);
    std::vector<int64_t> done(size_t(B), 0);
    done[0] = P;
    {
      c10::NoGradGuard no_tape;
      const auto series = f.series();
      EXPECT_TRUE(at::equal(series(first, std::vector<int64_t>(size_t(B), 0)), f(first)));
      // What stands in a sample that is done is not read.
      const Tensor expected = f(second);
      second[0].fill_(NAN);
      EXPECT_TRUE(at::equal(series(second, done), expected));
    }
    const Tensor at_z = s.z.detach().requires_grad_(true);
    const deq::Map::Linearised both = f.linearise(at_z);
    const Tensor u = at::randn_like(first), v = at::randn_like(first);
    const auto product = [&](const Tensor& of) {
      return torch::autograd::grad({deq::ops::group_step_reference(at_z, s.context)}, {at_z},
                                   {of})[0];
    };
    EXPECT_LT(relative(both.transposed(u, {}), product(u)), 1e-12);
    Tensor expected = product(v);
    expected[0].copy_(product(u)[0]);
    EXPECT_LT(relative(both.transposed(v, done), expected), 1e-12);
  }
}

TEST(GroupStep, NaNStaysInItsSample) {
  std::mt19937 random(17);
  at::manual_seed(17);
  Sample s(random, at::kFloat);
  while (s.z.size(0) < 2) s = Sample(random, at::kFloat);
  c10::NoGradGuard no_tape;
  const Tensor clean = GroupStep(s.context)(s.z);
  Tensor z = s.z.detach().clone();
  z[0].fill_(NAN);
  const Tensor f = GroupStep(s.context)(z);
  EXPECT_TRUE(f[0].isnan().all().item<bool>());
  EXPECT_TRUE(at::equal(f.narrow(0, 1, f.size(0) - 1), clean.narrow(0, 1, f.size(0) - 1)));
}

TEST(GroupStep, RefusesShapesThatDoNotFit) {
  std::mt19937 random(19);
  const Sample s(random, at::kFloat);
  const auto with = [&](const std::function<void(GroupContext&)>& change) {
    return deq::testing::error_of([&] {
      GroupContext context = s.context;
      change(context);
      GroupStep{context};
    });
  };
  EXPECT_SAYS(with([](GroupContext& c) { c.place = at::zeros({1, 1, 1}); }), "place is [1, 1, 1]");
  EXPECT_SAYS(with([](GroupContext& c) { c.output = at::zeros({1}); }), "output is [1]");
  EXPECT_SAYS(with([](GroupContext& c) { c.kinds = at::zeros({9, 1, 1}); }), "kinds are [9, 1, 1]");
  EXPECT_SAYS(with([](GroupContext& c) { c.injected = c.injected.to(at::kDouble); }), "one type");
  EXPECT_SAYS(deq::testing::error_of([&] { GroupStep(s.context)(at::zeros({1})); }), "z is [1]");
}

}  // namespace
