#include "deq/ops/softmax_loss.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>

#include "deq/base/memory_meter.h"
#include "tests/base/scratch.h"

namespace {

using at::Tensor;
using deq::ops::softmax_loss;
using deq::ops::softmax_loss_reference;

struct Sample {
  std::vector<Tensor> inputs;  // hidden, weight, bias
  Tensor targets;

  Sample(int64_t N, int64_t D, int64_t V, at::ScalarType type) {
    const auto leaf = [&](at::IntArrayRef shape) {
      return at::randn(shape, at::TensorOptions().dtype(type)).requires_grad_(true);
    };
    inputs = {leaf({N, D}), leaf({V, D}), leaf({V})};
    targets = at::randint(V, {N}, at::kLong);
  }
  Tensor ours() const { return softmax_loss(inputs[0], inputs[1], inputs[2], targets); }
  Tensor plain() const { return softmax_loss_reference(inputs[0], inputs[1], inputs[2], targets); }
};

double relative(const Tensor& a, const Tensor& b) {
  return ((a - b).norm() / (b.norm() + 1e-12)).item<double>();
}

TEST(SoftmaxLoss, AgreesWithTheReference) {
  at::manual_seed(3);
  for (const auto& [type, tolerance] : {std::pair{at::kFloat, 1e-5}, {at::kDouble, 1e-13}}) {
    for (const int64_t V : {1, 2, 7, 16, 33, 1000}) {
      for (const int64_t N : {1, 5, 300}) {
        const Sample s(N, 1 + V % 13, V, type);
        const Tensor ours = s.ours(), plain = s.plain();
        EXPECT_LE((ours - plain).abs().max().item<double>(), 10 * tolerance) << N << " " << V;
        {
          c10::NoGradGuard no_tape;
          EXPECT_LE((s.ours() - plain).abs().max().item<double>(), 10 * tolerance);
        }
        // Of the mean, and of a function in which losses count differently.
        for (const Tensor& share : {at::full_like(plain, 1.0 / double(N)), at::randn_like(plain)}) {
          const auto mine = torch::autograd::grad({ours}, s.inputs, {share}, true);
          const auto theirs = torch::autograd::grad({plain}, s.inputs, {share}, true);
          for (size_t i = 0; V > 1 && i < 3; ++i)
            EXPECT_LE(relative(mine[i], theirs[i]), 10 * tolerance) << N << " " << V << " " << i;
        }
      }
    }
  }
}

TEST(SoftmaxLoss, SmallLossesKeepTheirDigits) {
  // One feature: the logits are the weight's rows times `margin`, the target's ahead of all others.
  for (const int64_t V : {2, 10, 40}) {
    for (const double margin : {5.0, 20.0, 40.0, 80.0}) {
      Tensor weight = at::zeros({V, 1}, at::kFloat);
      weight[V / 2] = 1;
      const Tensor hidden = at::full({1, 1}, margin, at::kFloat).requires_grad_(true);
      const Tensor loss =
          softmax_loss(hidden, weight, at::zeros({V}), at::full({1}, V / 2, at::kLong));
      const double expected = std::log1p(double(V - 1) * std::exp(-margin));
      EXPECT_NEAR(loss.item<double>() / expected, 1, 1e-5) << V << " " << margin;
      loss.sum().backward();
      // d loss / d margin = -(1 - p(target)) = -(1 - e^-loss)
      EXPECT_NEAR(hidden.grad().item<double>() / std::expm1(-expected), 1, 1e-5) << V;
    }
  }
}

TEST(SoftmaxLoss, DependsNeitherOnNeighboursNorOnThreads) {
  at::manual_seed(7);
  const Sample s(301, 33, 205, at::kFloat);
  const auto found = [&](int threads, int64_t first, int64_t count) {
    at::set_num_threads(threads);
    const Tensor hidden = s.inputs[0].detach().narrow(0, first, count).requires_grad_(true);
    const Tensor losses =
        softmax_loss(hidden, s.inputs[1], s.inputs[2], s.targets.narrow(0, first, count));
    std::vector<Tensor> out =
        torch::autograd::grad({losses.sum()}, {hidden, s.inputs[1], s.inputs[2]});
    out.push_back(losses);
    return out;
  };
  const int before = at::get_num_threads();
  const auto all = found(1, 0, 301), shared = found(3, 0, 301), some = found(2, 40, 150);
  at::set_num_threads(before);
  for (size_t i = 0; i < all.size(); ++i) EXPECT_TRUE(all[i].equal(shared[i])) << i;
  for (const size_t i : {0, 3}) EXPECT_TRUE(all[i].narrow(0, 40, 150).equal(some[i])) << i;
}

TEST(SoftmaxLoss, ReadsMatricesThatAreNotContiguous) {
  at::manual_seed(8);
  const Sample s(40, 9, 23, at::kDouble);
  std::vector<Tensor> spread;
  for (const Tensor& t : s.inputs)
    spread.push_back(t.detach().repeat_interleave(2, -1).slice(-1, 0, {}, 2));
  const Tensor ours = softmax_loss(spread[0], spread[1], spread[2], s.targets);
  EXPECT_LE(relative(ours, s.plain()), 1e-13);
}

TEST(SoftmaxLoss, EitherUseHasTheSameGradients) {
  at::manual_seed(4);
  const Sample s(300, 7, 50, at::kDouble);
  const Tensor any =
      softmax_loss(s.inputs[0], s.inputs[1], s.inputs[2], s.targets, deq::ops::LossUse::Any);
  for (const Tensor& share : {at::ones({300}, at::kDouble), at::randn({300}, at::kDouble)}) {
    const auto mine = torch::autograd::grad({s.ours()}, s.inputs, {share});
    const auto theirs = torch::autograd::grad({any}, s.inputs, {share}, true);
    for (size_t i = 0; i < 3; ++i) EXPECT_LE(relative(mine[i], theirs[i]), 1e-13);
  }
}

TEST(SoftmaxLoss, KeepsNoMatrixOfLogits) {
  const Sample s(512, 4, 1000, at::kFloat);
  const int64_t peak = deq::peak_tensor_bytes([&] { s.ours().mean().backward(); });
  EXPECT_LT(peak, 512 * 1000 * 4);
}

TEST(SoftmaxLoss, IsTwiceDifferentiable) {
  at::manual_seed(5);
  const Sample s(6, 4, 9, at::kDouble);
  const auto second = [&](const Tensor& loss) {
    const auto first = torch::autograd::grad({loss.sum()}, s.inputs, {}, true, true);
    return torch::autograd::grad({first[0].square().sum()}, s.inputs, {}, true);
  };
  const auto ours = second(s.ours()), plain = second(s.plain());
  for (size_t i = 0; i < 3; ++i) EXPECT_LE(relative(ours[i], plain[i]), 1e-12);
}

TEST(SoftmaxLoss, TapedGradientsOfATiedTableCountEachPathOnce) {
  at::manual_seed(6);
  const Sample s(6, 4, 9, at::kDouble);
  const Tensor weight = s.inputs[1], hidden = weight.narrow(0, 0, 6).tanh();
  const Tensor loss = softmax_loss(hidden, weight, s.inputs[2], s.targets).sum();
  const Tensor plain = torch::autograd::grad({loss}, {weight}, {}, true)[0];
  const Tensor taped = torch::autograd::grad({loss}, {weight}, {}, true, true)[0];
  EXPECT_LE(relative(taped, plain), 1e-12);
}

TEST(SoftmaxLoss, HugeLogitsDoNotOverflow) {
  const Tensor hidden = at::ones({1, 1}), weight = at::tensor({1e4f, -1e4f, 0.f}).view({3, 1});
  const auto loss = [&](int64_t target) {
    return softmax_loss(hidden, weight, at::zeros({3}), at::full({1}, target, at::kLong))
        .item<double>();
  };
  EXPECT_EQ(loss(0), 0);
  EXPECT_EQ(loss(1), 2e4);
  weight[2].fill_(NAN);
  EXPECT_TRUE(std::isnan(loss(0)));
}

TEST(SoftmaxLoss, ANaNIsALossThatIsNone) {
  constexpr int64_t kClasses = 37;  // whole vectors and a rest
  for (int64_t at = 1; at < kClasses; ++at) {
    const Tensor hidden = at::ones({1, 1}), weight = at::rand({kClasses, 1});
    weight[at].fill_(NAN);
    const Tensor loss =
        softmax_loss(hidden, weight, at::zeros({kClasses}), at::zeros({1}, at::kLong));
    EXPECT_TRUE(std::isnan(loss.item<double>())) << "logit " << at;
  }
}

TEST(SoftmaxLoss, WrongArgumentsAreErrors) {
  const Tensor hidden = at::ones({2, 3}), weight = at::ones({4, 3}), bias = at::ones({4});
  const auto refusal = [&](const Tensor& h, const Tensor& w, const Tensor& b, const Tensor& t) {
    return deq::testing::error_of([&] { softmax_loss(h, w, b, t); });
  };
  const Tensor targets = at::tensor({0, 3}, at::kLong);
  EXPECT_SAYS(refusal(hidden, weight.t(), bias, targets), "weight [3, 4]");
  EXPECT_SAYS(refusal(hidden, weight, bias.narrow(0, 0, 3), targets), "bias [3]");
  EXPECT_SAYS(refusal(hidden, weight, bias, targets.narrow(0, 0, 1)), "targets [1]");
  EXPECT_SAYS(refusal(hidden, weight, bias, targets.to(at::kInt)), "targets are Int");
  EXPECT_SAYS(refusal(hidden, weight, bias, targets + 1), "target 4; expected 0 to 3");
  EXPECT_SAYS(refusal(hidden, weight, bias, targets - 1), "target -1; expected 0 to 3");
}

}  // namespace
