#include "deq/cells/energy_convolution.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/types.h>

#include <cmath>

#include "deq/base/error.h"

namespace deq {

using at::Tensor;

namespace {

/// What a convolution reads at each place, (B, ..., taps D), zeros around y (B, T, D) or (B, H, W,
/// D).
Tensor taps(const Tensor& y, int64_t kernel) {
  const int64_t half = kernel / 2, dimensions = y.dim() - 2;
  std::vector<int64_t> around{0, 0};  // features
  for (int64_t d = 0; d < dimensions; ++d) around.insert(around.end(), {half, half});
  const Tensor padded = at::constant_pad_nd(y, around);
  std::vector<Tensor> read{padded};
  for (int64_t d = 1; d <= dimensions; ++d) {
    std::vector<Tensor> shifted;
    for (const Tensor& part : read) {
      for (int64_t k = 0; k < kernel; ++k) shifted.push_back(part.narrow(d, k, y.size(d)));
    }
    read = std::move(shifted);
  }
  return at::cat(read, -1);
}

}  // namespace

std::shared_ptr<EnergyTerm> EnergyConvolution::make(const CellPlace&, int64_t dimensions) const {
  return std::make_shared<EnergyConvolutionTerm>(*this, dimensions);
}

EnergyConvolutionTerm::EnergyConvolutionTerm(const EnergyConvolution& options, int64_t dimensions)
    : options_(options), dimensions_(dimensions) {
  validate(options, "EnergyConvolution");
  check_smooth(options.activation);
  DEQ_CHECK(options.kernel % 2 == 1, "cell-of-kernel = {}; expected an odd number", options.kernel);
  const auto places = int64_t(std::lround(std::pow(double(options.kernel), double(dimensions))));
  const int64_t read = places * options.width, I = options.inner;
  state_ = register_module("state", std::make_shared<Linear>(read, I, false, false));
  inject_ = register_module("inject", std::make_shared<Linear>(read, I, true, false));
  mix_ = register_module("mix", std::make_shared<Linear>(I, options.width, true, false));
  weight_ = register_parameter("weight", torch::zeros({options.width}));
}

void EnergyConvolutionTerm::initialise(double std) {
  const c10::AutoGradMode no_tape(false);
  for (const auto& linear : {state_, inject_, mix_}) linear->initialise(std);
  weight_.normal_(0, std);
}

double EnergyConvolutionTerm::operations(int64_t batch, int64_t positions) const {
  const double places = std::pow(double(options_.kernel), double(dimensions_));
  return 2.0 * double(batch * positions) * double(options_.width * options_.inner) * (places + 1);
}

EnergyOf EnergyConvolutionTerm::bind(const Tensor& x) {
  DEQ_CHECK(x.dim() == dimensions_ + 2, "energy conv: x has {} dimensions; expected {}", x.dim(),
            dimensions_ + 2);
  const int64_t kernel = options_.kernel;
  const Activation s = options_.activation;
  const Tensor injected =
      by_place(taps(x, kernel), ops::affine_weight(inject_->weight()), inject_->bias());
  return [=, state = ops::affine_weight(state_->weight()), mix = ops::affine_weight(mix_->weight()),
          bias = mix_->bias(), weight = weight_](const Tensor& z) {
    const Tensor h = activated(s, by_place(taps(z, kernel), state, {}) + injected);
    const Tensor units = activated(s, by_place(h, mix, bias)) * weight;
    return (0.5 * z.square() + units).flatten(1).sum(1);
  };
}

}  // namespace deq
