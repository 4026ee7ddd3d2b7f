#include "deq/ops/gradient_step.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <c10/core/InferenceMode.h>
#include <torch/csrc/autograd/autograd.h>

#include <atomic>

#include "deq/base/error.h"

namespace deq::ops {

using at::Tensor;

namespace {

class GradientStep {
 public:
  GradientStep(EnergyOf energy, const Tensor& eta, std::vector<int64_t> shape)
      : energy_(std::move(energy)), eta_(eta), shape_(std::move(shape)) {
    DEQ_CHECK(eta.dim() <= 1, "gradient step: eta of shape [{}]; expected one number or (B)",
              fmt::join(eta.sizes(), ", "));
  }

  Tensor operator()(const Tensor& z) const {
    DEQ_CHECK(!c10::InferenceMode::is_enabled(),
              "energy: its gradient needs a tape, which InferenceMode does not record; expected "
              "NoGradGuard or none");
    const bool taped = c10::GradMode::is_enabled();
    const c10::AutoGradMode tape(true);
    const Tensor at = taped && z.requires_grad() ? z : z.detach().requires_grad_(true);
    const Tensor total = energy(at).sum();
    DEQ_CHECK(total.requires_grad(), "energy: it does not depend on z");
    const Tensor slope = torch::autograd::grad({total}, {at}, {}, taped, taped)[0];
    if (taped) check_bends(slope, at);
    const c10::AutoGradMode as_before(taped);
    return z - eta_of(z) * slope;
  }

  Tensor energy(const Tensor& z) const {
    const Tensor found = energy_(shape_.empty() ? z : z.view(shape_));
    DEQ_CHECK(found.defined() && found.sizes() == at::IntArrayRef({z.size(0)}),
              "energy: its value is {}; expected [{}], a number for each sample",
              found.defined() ? fmt::format("[{}]", fmt::join(found.sizes(), ", ")) : "undefined",
              z.size(0));
    return found;
  }

 private:
  Tensor eta_of(const Tensor& z) const {
    if (eta_.dim() == 0) return eta_;
    std::vector<int64_t> shape(size_t(z.dim()), 1);
    shape[0] = eta_.size(0);
    return eta_.view(shape);
  }

  /// Looks once.
  void check_bends(const Tensor& slope, const Tensor& z) const {
    if (looked_.exchange(true)) return;
    const bool bends =
        slope.requires_grad() &&
        torch::autograd::grad({slope.sum()}, {z}, {}, true, false, true)[0].defined();
    DEQ_CHECK(bends,
              "energy: its gradient does not depend on z; expected an energy with second "
              "derivatives");
  }

  EnergyOf energy_;
  Tensor eta_;
  std::vector<int64_t> shape_;
  mutable std::atomic<bool> looked_ = false;
};

}  // namespace

Map gradient_step(EnergyOf energy, const Tensor& eta, std::vector<int64_t> shape) {
  const auto f = std::make_shared<const GradientStep>(std::move(energy), eta, std::move(shape));
  Map map([f](const Tensor& z) { return (*f)(z); }, {});
  return map.set_energy([f](const Tensor& z) {
    const c10::AutoGradMode no_tape(false);
    return f->energy(z);
  });
}

}  // namespace deq::ops
