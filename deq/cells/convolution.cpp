#include "deq/cells/convolution.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/types.h>

#include <cmath>

#include "deq/cells/norm.h"

namespace deq {

using at::Tensor;

namespace {

/// What f is of, fixed for a solve. Channels are the last dimension of states, as everywhere.
struct Block {
  ConvolutionNorm norm;
  std::vector<Tensor> weights;
  Tensor injected;  // (B, D, T) or (B, D, H, W), as the convolutions have it

  /// y (B, D, ...), zeros around it.
  Tensor convolved(const Tensor& y, const Tensor& weight) const {
    const int64_t padding = weight.size(2) / 2;
    if (y.dim() == 3) return at::conv1d(y, weight, {}, 1, padding);
    return at::conv2d(y, weight, {}, 1, padding);
  }
  Tensor operator()(const Tensor& z) const {
    const bool published = norm == ConvolutionNorm::None;
    Tensor y = convolved(z.movedim(-1, 1), weights[0]) + injected;
    if (published && weights.size() == 1) y = y.relu();
    for (size_t i = 1; i + 1 < weights.size(); i += 2) {
      y = y + convolved(convolved(y, weights[i]).relu(), weights[i + 1]);
      if (published) y = y.relu();
    }
    const Tensor f = y.movedim(1, -1);
    return (published ? f : rms_normalised(z + f)).contiguous();
  }
};

}  // namespace

std::shared_ptr<Cell> Convolution::make(const CellPlace&) const {
  return std::make_shared<ConvolutionCell>(*this);
}

ConvolutionCell::ConvolutionCell(const Convolution& options) : options_(options) {
  validate(options, "Convolution");
  DEQ_CHECK(options.kernel % 2 == 1 && options.convolutions % 2 == 1,
            "cell-kernel = {}, cell-convolutions = {}; expected odd numbers", options.kernel,
            options.convolutions);
  std::vector<int64_t> shape{options.width, options.width};
  for (int64_t d = 0; d < options.dimensions; ++d) shape.push_back(options.kernel);
  inject_ = register_parameter("inject", torch::zeros(shape));
  for (int64_t i = 0; i < options.convolutions; ++i)
    weights_.push_back(register_parameter("weight" + std::to_string(i), torch::zeros(shape)));
  initialise(0.02);
}

void ConvolutionCell::initialise(double std) {
  c10::AutoGradMode no_tape(false);
  inject_.normal_(0, std);
  for (Tensor& weight : weights_) weight.normal_(0, std);
}

double ConvolutionCell::operations(int64_t batch, int64_t positions, int64_t) const {
  const double taps = std::pow(double(options_.kernel), double(options_.dimensions));
  return 2.0 * double(batch * positions) * double(options_.width * options_.width) * taps *
         double(options_.convolutions);
}

std::vector<Bound> ConvolutionCell::bind_levels(const Tensor& x,
                                                const std::vector<History>& levels) {
  DEQ_CHECK(x.dim() == options_.dimensions + 2 && x.size(-1) == options_.width,
            "ConvolutionCell: x has shape [{}]; expected {}, as cell-dimensions = {} says",
            fmt::join(x.sizes(), ", "),
            options_.dimensions == 1 ? fmt::format("(batch, positions, {})", options_.width)
                                     : fmt::format("(batch, rows, columns, {})", options_.width),
            options_.dimensions);
  for (const History& history : levels)
    DEQ_CHECK(history.length() == 0,
              "ConvolutionCell: a history of {} positions; expected none: problems stand alone",
              history.length());
  Block block{options_.norm, weights_, {}};
  block.injected = block.convolved(x.movedim(-1, 1), inject_);
  const auto shared = std::make_shared<const Block>(std::move(block));
  std::vector<Bound> bound(levels.size());
  for (Bound& f : bound) {
    f.f = Map([shared](const Tensor& z) { return (*shared)(z); }, {});
    f.extend = [](const Tensor&, int64_t) { return History{}; };
  }
  return bound;
}

}  // namespace deq
