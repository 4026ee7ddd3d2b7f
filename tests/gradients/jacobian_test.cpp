#include "deq/gradients/jacobian.h"

#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include "deq/base/memory_meter.h"
#include "deq/ops/trellis_step.h"
#include "tests/base/scratch.h"
#include "tests/gradients/dense_jacobian.h"

namespace deq {
namespace {

using at::Tensor;
using namespace testing;

TEST(JacobianLoss, ExpectsTheSquaredNormPerElement) {
  const Layer layer;
  const Tensor z = randn({3, 4, 5}, at::kDouble, 102);
  const double exact =
      dense_jacobian(layer.map(), z).square().sum().item<double>() / double(z.numel());
  at::NoGradGuard no_tape;
  at::manual_seed(1);
  const int64_t count = 2000;
  Tensor samples = at::empty({count}, at::kDouble);
  for (int64_t i = 0; i < count; ++i) samples[i] = jacobian_loss(layer.map(), z);
  const double standard_error = samples.std().item<double>() / std::sqrt(double(count));
  EXPECT_NEAR(samples.mean().item<double>(), exact, 4 * standard_error);
  EXPECT_LT(standard_error, 0.02 * exact);
  at::manual_seed(2);
  EXPECT_NEAR(jacobian_loss(layer.map(), z, 1000).item<double>(), exact, 0.1 * exact);
}

TEST(JacobianLoss, ItsGradientAgreesWithFiniteDifferences) {
  const Layer layer;
  const Tensor z = randn({3, 4, 5}, at::kDouble, 103);
  const auto loss = [&] {
    at::manual_seed(3);
    return jacobian_loss(layer.map(), z, 2);
  };
  const Tensor g = torch::autograd::grad({loss()}, {layer.W})[0];
  at::NoGradGuard no_tape;
  const Tensor flat = layer.W.view(-1);
  for (int64_t k = 0; k < flat.numel(); k += 4) {
    const double h = 1e-6, value = flat[k].item<double>();
    flat[k] = value + h;
    const double above = loss().item<double>();
    flat[k] = value - h;
    const double below = loss().item<double>();
    flat[k] = value;
    EXPECT_NEAR(g.view(-1)[k].item<double>(), (above - below) / (2 * h), 1e-7);
  }
}

TEST(JacobianLoss, HoldsTheStateFixedAndNeedsNoTape) {
  const Layer layer;
  const Tensor z = randn({3, 4, 5}, at::kDouble, 104).requires_grad_(true);
  const Tensor loss = jacobian_loss(layer.map(), z);
  const auto g = torch::autograd::grad({loss}, {layer.W, z}, {}, {}, false, /*allow_unused=*/true);
  EXPECT_TRUE(g[0].defined());
  EXPECT_FALSE(g[1].defined());
  at::NoGradGuard no_tape;
  EXPECT_FALSE(jacobian_loss(layer.map(), z).requires_grad());
}

TEST(JacobianLoss, OfAMapWithoutJacobianIsZero) {
  const Tensor w = at::ones({2, 3}, at::kDouble);
  const Tensor z = at::zeros({2, 3}, at::kDouble);
  EXPECT_EQ(jacobian_loss([w](const Tensor&) { return w; }, z).item<double>(), 0);
  const Tensor leaf = w.clone().requires_grad_(true);
  EXPECT_EQ(jacobian_loss([leaf](const Tensor&) { return 2 * leaf; }, z).item<double>(), 0);
}

TEST(JacobianLoss, CostsNoMoreThroughKernelsThanWithoutThem) {
  const int64_t B = 4, T = 32, H = 24;
  const Tensor weight = randn({4 * H, 2 * H}, at::kFloat, 140).mul_(0.2).requires_grad_(true);
  ops::TrellisContext c;
  c.kernel = 2;
  c.dilation = 1;
  c.injected = randn({B, T, 4 * H}, at::kFloat, 141).requires_grad_(true);
  c.weight = ops::trellis_weight(weight, 2);
  c.past = at::zeros({B, 1, 2 * H});
  const Tensor z = randn({B, T, 2 * H}, at::kFloat, 142);
  const Map kernels = ops::TrellisStep(c).map();
  const Map plain = [c](const Tensor& state) { return ops::trellis_step_reference(state, c); };
  std::vector<Tensor> found;
  const auto cost = [&](const Map& f) {
    return peak_tensor_bytes([&] {
      at::manual_seed(6);
      found.push_back(torch::autograd::grad({jacobian_loss(f, z)}, {weight})[0]);
    });
  };
  const int64_t with = cost(kernels), without = cost(plain);
  EXPECT_LT(largest(found[0] - found[1]), 1e-5 * largest(found[1]));
  EXPECT_LE(double(with), 1.01 * double(without));
}

TEST(JacobianLoss, OfNoSampleIsZero) {
  const Tensor weight = at::ones({3}, at::kDouble).requires_grad_(true);
  const Tensor loss =
      jacobian_loss([&](const Tensor& z) { return weight * z; }, at::zeros({0, 3}, at::kDouble), 2);
  EXPECT_EQ(loss.item<double>(), 0);
  EXPECT_EQ(largest(torch::autograd::grad({loss}, {weight})[0]), 0);
}

TEST(JacobianLoss, WrongArgumentsAreErrors) {
  const Tensor z = at::zeros({2, 3}, at::kDouble);
  const Map f = [](const Tensor& z) { return 0.5 * z; };
  EXPECT_SAYS(error_of([&] { jacobian_loss(f, z, 0); }), "probes = 0");
  EXPECT_SAYS(error_of([&] { jacobian_loss([](const Tensor& z) { return z.sum(0); }, z); }), "[3]");
}

TEST(JacobianLoss, InInferenceModeIsAnError) {
  const c10::InferenceMode inference;
  const Tensor z = at::ones({2, 3}, at::kDouble);
  EXPECT_SAYS(error_of([&] { jacobian_loss([](const Tensor& z) { return 0.5 * z; }, z); }),
              "InferenceMode");
}

}  // namespace
}  // namespace deq
