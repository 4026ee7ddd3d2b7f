#include "deq/cells/monotone_convolution.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/types.h>

#include <cmath>

#include "deq/ops/elimination.h"
#include "deq/ops/spectral.h"

namespace deq {

using at::Tensor;

namespace {

/// s(W * z + c), fixed for a solve.
struct Circular {
  ops::Torus torus;
  ops::SpectralWeight weight;  // W
  Tensor c;                    // (B, rows, columns, D)
  Activation s;
  double margin;

  Tensor convolved(const Tensor& z) const {
    const Tensor spectrum =
        ops::to_spectrum(torus, z.reshape({-1, c.size(1), c.size(2), c.size(3)}));
    return ops::from_spectrum(torus, ops::spectral_product(spectrum, weight));
  }
  Tensor argument(const Tensor& z) const { return (convolved(z) + c).view(z.sizes()); }
  Tensor operator()(const Tensor& z) const { return activated(s, argument(z)); }

  Circular without_tape() const {
    Circular own = *this;
    own.weight.weight = own.weight.weight.detach();
    own.c = c.detach();
    return own;
  }
  Circular with_weight(const Tensor& W) const {
    Circular own = *this;
    own.weight = ops::spectral_weight(W);
    return own;
  }

  /// |I - W|, by power iteration from below.
  double norm() const {
    constexpr int kIterations = 12;
    const Tensor& W = weight.weight;
    const Tensor rest = at::eye(W.size(1), W.options()) - W;
    const Circular forth = with_weight(rest), back = with_weight(rest.transpose(1, 2));
    Tensor v = at::arange(c[0].numel(), c.options()).mul_(0.7).sin_().view(c[0].sizes());
    v = v.unsqueeze(0) + 0.1;
    double value = 0;
    for (int i = 0; i < kIterations; ++i) {
      const double length = v.norm().item<double>();
      if (!(length > 0)) break;
      v = forth.convolved(v / length);
      value = std::max(value, v.norm().item<double>());
      v = back.convolved(v);
    }
    return value;
  }

  Map::Resolvent resolvent() const {
    Map::Resolvent found = resolvent_of(without_tape());
    found.proximal = [s = s](const Tensor& w, double alpha) { return proximal(s, w, alpha); };
    return found;
  }

  Map::Linearised linearise(const Tensor& z) const {
    const Circular own = without_tape();
    Map::Linearised at_z = Map([own](const Tensor& u) { return own(u); }, {}).linearise(z);
    const Tensor y = argument(z), slope = slope_of(s, y);
    at_z.fz = activated(s, y);
    at_z.resolvent = [own, slope](const Tensor& g) {
      Circular adjoint = own.with_weight(own.weight.weight.transpose(1, 2));
      adjoint.c = g.reshape(adjoint.c.sizes());
      Map::Resolvent found = resolvent_of(adjoint);
      found.proximal = [slope](const Tensor& w, double alpha) {
        const Tensor d = slope.view(w.sizes());
        return alpha == 1 ? d * w : d * w / (d + alpha * (1 - d));
      };
      found.outer = true;
      return found;
    };
    return at_z;
  }

 private:
  static Map::Resolvent resolvent_of(const Circular& of) {
    Map::Resolvent found;
    found.argument = [of](const Tensor& v) { return of.argument(v); };
    found.linear = [of](double alpha) -> std::function<Tensor(const Tensor&)> {
      const Tensor& W = of.weight.weight;
      const Tensor one = at::eye(W.size(1), W.options());
      Circular linear = of.with_weight(ops::inverse((1 + alpha) * one - alpha * W));
      linear.c = linear.convolved(alpha * of.c);
      return [linear](const Tensor& w) { return linear.argument(w); };
    };
    found.margin = of.margin;
    found.norm = of.norm();
    return found;
  }
};

Tensor as_grid(const Tensor& t) { return t.dim() == 3 ? t.unsqueeze(1) : t; }

/// A kernel (n, k, K) or (n, k, K, K) as one of two dimensions.
Tensor as_kernel(const Tensor& kernel) { return kernel.dim() == 3 ? kernel.unsqueeze(2) : kernel; }

/// Of Frobenius norm 1; zero stays zero.
Tensor normalised(const Tensor& kernel) { return kernel / kernel.norm().clamp_min(1e-30); }

}  // namespace

std::shared_ptr<Cell> MonotoneConvolution::make(const CellPlace&) const {
  return std::make_shared<MonotoneConvolutionCell>(*this);
}

MonotoneConvolutionCell::MonotoneConvolutionCell(const MonotoneConvolution& options)
    : options_(options) {
  validate(options, "MonotoneConvolution");
  DEQ_CHECK(options.kernel % 2 == 1, "cell-kernel = {}; expected an odd number", options.kernel);
  const auto kernel = [&](int64_t from) {
    std::vector<int64_t> shape{options.width, from};
    for (int64_t d = 0; d < options.dimensions; ++d) shape.push_back(options.kernel);
    return torch::zeros(shape);
  };
  a_ = register_parameter("A", kernel(options.width));
  b_ = register_parameter("B", kernel(options.width));
  gains_ = register_parameter("g", torch::ones({2}));
  inject_ = register_parameter("inject", kernel(input_width()));
  bias_ = register_parameter("bias", torch::zeros({options.width}));
  initialise(0.02);
}

void MonotoneConvolutionCell::initialise(double std) {
  c10::AutoGradMode no_tape(false);
  for (Tensor* kernel : {&a_, &b_, &inject_}) kernel->normal_(0, std);
  gains_.fill_(1);
  bias_.zero_();
}

double MonotoneConvolutionCell::operations(int64_t batch, int64_t positions, int64_t) const {
  const double taps = std::pow(double(options_.kernel), double(options_.dimensions));
  return 2.0 * double(batch * positions) * double(options_.width * options_.width) * taps * 3;
}

std::vector<Bound> MonotoneConvolutionCell::bind_levels(const Tensor& x,
                                                        const std::vector<History>& levels) {
  DEQ_CHECK(x.dim() == options_.dimensions + 2 && x.size(-1) == input_width(),
            "MonotoneConvolutionCell: x has shape [{}]; expected {}, as cell-dimensions = {} says",
            fmt::join(x.sizes(), ", "),
            options_.dimensions == 1 ? fmt::format("(batch, positions, {})", input_width())
                                     : fmt::format("(batch, rows, columns, {})", input_width()),
            options_.dimensions);
  for (const History& history : levels)
    DEQ_CHECK(
        history.length() == 0,
        "MonotoneConvolutionCell: a history of {} positions; expected none: places of a torus "
        "have no past",
        history.length());
  const Tensor grid = as_grid(x);
  const ops::Torus torus{grid.size(1), grid.size(2)};
  const Tensor A = ops::transfer(torus, normalised(as_kernel(a_))),
               B = ops::transfer(torus, normalised(as_kernel(b_)));
  const Tensor one = at::eye(A.size(1), A.options().requires_grad(false));
  const Tensor W = (1 - options_.margin) * one - gains_[0].abs() * at::bmm(A.transpose(1, 2), A) +
                   gains_[1] * (B - B.transpose(1, 2));
  const auto U = ops::spectral_weight(ops::transfer(torus, as_kernel(inject_)));
  const Tensor injected =
      ops::from_spectrum(torus, ops::spectral_product(ops::to_spectrum(torus, grid), U)) + bias_;
  const auto f = std::make_shared<const Circular>(
      Circular{torus, ops::spectral_weight(W), injected, options_.activation, options_.margin});
  std::vector<Bound> bound(levels.size());
  for (Bound& one : bound) {
    one.f = Map([f](const Tensor& z) { return (*f)(z); }, {});
    one.f.set_linearise([f](const Tensor& z) { return f->linearise(z); });
    one.f.set_resolvent([f] { return f->resolvent(); });
    one.extend = [](const Tensor&, int64_t) { return History{}; };
  }
  return bound;
}

}  // namespace deq
