// The suite over layers can fail: a layer that is none.
#include "tests/layers/layer_suite.h"

#include <ATen/ATen.h>
#include <gtest/gtest-spi.h>
#include <gtest/gtest.h>

namespace deq::testing {
namespace {

Report converged(const at::Tensor& finite) {
  Report report;
  report.reason = at::where(finite, at::full({}, int64_t(Reason::Converged), at::kByte),
                            at::full({}, int64_t(Reason::NonFinite), at::kByte));
  report.residual = at::zeros({finite.size(0)}, at::kDouble);
  report.steps = at::ones({finite.size(0)}, at::kLong);
  return report;
}

/// y = x^2 + w, of which sample 0 has `leak` of the batch's mean.
LayerCase squares(double leak, double gradient = 1) {
  return {"squares",
          {{"x", at::arange(1, 7, at::kDouble).view({3, 2})}},
          {{"w", at::ones({2}, at::kDouble)}},
          [=](const Tensors& batched, const Tensors& shared) {
            const at::Tensor finite = batched.at("x").detach().isfinite().all(1, true);
            const at::Tensor x = at::where(finite, batched.at("x"), at::zeros({}, at::kDouble));
            const at::Tensor scaled = gradient * x + (1 - gradient) * x.detach();
            const at::Tensor own = scaled.square() + shared.at("w");
            const at::Tensor beside = leak * x.detach().mean();
            return LayerResult{{{"y", own + beside}}, converged(finite.squeeze(1))};
          }};
}

TEST(LayerSuite, PassesALayerThatIsOne) {
  check_samples_alone(squares(0));
  check_gradients(squares(0));
}

TEST(LayerSuite, SeesABatchThatMixes) {
  ::testing::TestPartResultArray found;
  {
    const ::testing::ScopedFakeTestPartResultReporter caught(
        ::testing::ScopedFakeTestPartResultReporter::INTERCEPT_ONLY_CURRENT_THREAD, &found);
    check_samples_alone(squares(1e-9));
  }
  EXPECT_GT(found.size(), 0);
}

TEST(LayerSuite, SeesAGradientThatIsNone) {
  EXPECT_NONFATAL_FAILURE(check_gradients(squares(0, 0.99)), "squares: x");
}

}  // namespace
}  // namespace deq::testing
