#include "deq/ops/spectral.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>
#include <vector>

#include "deq/base/error.h"
#include "deq/ops/affine.h"
#include "deq/ops/packed.h"
#include "deq/ops/weight_gradient.h"

namespace deq::ops {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

/// cos or sin of 2 pi row column / period, (rows, columns) double.
Tensor waves(int64_t rows, int64_t columns, int64_t period, double (*wave)(double)) {
  Tensor out = at::empty({rows, columns}, at::kDouble);
  double* to = out.data_ptr<double>();
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < columns; ++j)
      *to++ = wave(2 * M_PI * double(i * j % period) / double(period));
  return out;
}

AffineWeight constant(const Tensor& matrix, const Tensor& like) {
  return affine_weight(matrix.to(like.options().requires_grad(false)));
}

/// Of real numbers along a row of W: (2 (W / 2 + 1), W).
Tensor along_columns(int64_t W) {
  const int64_t half = W / 2 + 1;
  return at::cat({waves(half, W, W, std::cos), -waves(half, W, W, std::sin)});
}

/// Its inverse, (W, 2 (W / 2 + 1)): frequencies that stand for their conjugates count twice.
Tensor back_along_columns(int64_t W) {
  const int64_t half = W / 2 + 1;
  Tensor weight = at::full({half}, 2.0 / double(W), at::kDouble);
  weight[0] = 1.0 / double(W);
  if (W % 2 == 0) weight[half - 1] = 1.0 / double(W);
  return at::cat({waves(W, half, W, std::cos) * weight, -waves(W, half, W, std::sin) * weight}, 1);
}

/// Of pairs along a column of H: (2 H, 2 H).
Tensor along_rows(int64_t H) {
  const Tensor c = waves(H, H, H, std::cos), s = waves(H, H, H, std::sin);
  return at::cat({at::cat({c, s}, 1), at::cat({-s, c}, 1)});
}

Tensor product(const Tensor& x, const Tensor& panels, int64_t n) {
  const int64_t F = x.size(0), B = x.size(1), k = x.size(2);
  const Tensor out = at::empty({F, B, n}, x.options().requires_grad(false));
  const auto each = [&](auto number) {
    using T = decltype(number);
    const T *from = x.data_ptr<T>(), *weight = panels.data_ptr<T>();
    T* const to = out.data_ptr<T>();
    at::parallel_for(0, F, 1, [&](int64_t begin, int64_t end) {
      for (int64_t f = begin; f < end; ++f)
        packed_product(B, n, k, from + f * B * k, weight + f * panels.size(1), to + f * B * n,
                       false);
    });
  };
  x.scalar_type() == at::kFloat ? each(float()) : each(double());
  return out;
}

Tensor packed_each(const Tensor& weight, bool transposed) {
  std::vector<Tensor> panels;
  for (int64_t f = 0; f < weight.size(0); ++f)
    panels.push_back(packed_weight(weight[f], transposed));
  return at::stack(panels);
}

bool has_kernel(const Tensor& weight) {
  const bool known = weight.scalar_type() == at::kFloat || weight.scalar_type() == at::kDouble;
  return known && weight.is_cpu() && weight.numel() > 0;
}

struct ProductNode : torch::autograd::Function<ProductNode> {
  static Tensor forward(AutogradContext* context, const Tensor& x, const Tensor& weight,
                        const Tensor& panels, const Tensor& back) {
    context->save_for_backward({x, weight, back});
    return product(x.contiguous(), panels, weight.size(1));
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    variable_list found(4);
    if (!gradients[0].defined()) return found;
    const variable_list saved = context->get_saved_variables();
    const Tensor x = saved[0], weight = saved[1], dy = gradients[0].contiguous();
    const bool taped = c10::GradMode::is_enabled();
    if (context->needs_input_grad(0))
      found[0] = taped ? at::bmm(dy, weight) : product(dy, saved[2], weight.size(2));
    if (!context->needs_input_grad(1)) return found;
    std::vector<Tensor> parts;
    for (int64_t f = 0; !taped && f < x.size(0); ++f)
      parts.push_back(weight_gradient(dy[f], x[f].contiguous()));
    found[1] = taped ? at::bmm(dy.transpose(1, 2), x) : at::stack(parts);
    return found;
  }
};

}  // namespace

Tensor to_spectrum(const Torus& torus, const Tensor& z) {
  const int64_t B = z.size(0), H = torus.rows, W = torus.columns, C = z.size(3), half = W / 2 + 1;
  DEQ_CHECK(z.dim() == 4 && z.size(1) == H && z.size(2) == W,
            "to_spectrum: a state of shape [{}]; expected (batch, {}, {}, channels)",
            fmt::join(z.sizes(), ", "), H, W);
  const Tensor lines = z.permute({0, 1, 3, 2}).reshape({B, H * C, W});
  Tensor pairs = affine(lines, constant(along_columns(W), z), {}).view({B, H, C, 2, half});
  if (H == 1) return pairs.permute({1, 4, 0, 3, 2}).reshape({half, B, 2 * C});
  pairs = pairs.permute({0, 4, 2, 3, 1}).reshape({B, half * C, 2 * H});
  pairs = affine(pairs, constant(along_rows(H), z), {}).view({B, half, C, 2, H});
  return pairs.permute({4, 1, 0, 3, 2}).reshape({H * half, B, 2 * C});
}

Tensor from_spectrum(const Torus& torus, const Tensor& spectrum) {
  const int64_t B = spectrum.size(1), H = torus.rows, W = torus.columns, half = W / 2 + 1;
  const int64_t C = spectrum.size(2) / 2;
  Tensor pairs = spectrum.view({H, half, B, 2, C});
  if (H > 1) {
    pairs = pairs.permute({2, 1, 4, 3, 0}).reshape({B, half * C, 2 * H});
    pairs = affine(pairs, constant(along_rows(H).t() / double(H), spectrum), {});
    pairs = pairs.view({B, half, C, 2, H}).permute({0, 4, 2, 3, 1});
  } else {
    pairs = pairs.permute({2, 0, 4, 3, 1});
  }
  const Tensor lines = pairs.reshape({B, H * C, 2 * half});
  const Tensor z = affine(lines, constant(back_along_columns(W), spectrum), {});
  return z.view({B, H, C, W}).permute({0, 1, 3, 2}).contiguous();
}

Tensor transfer(const Torus& torus, const Tensor& kernel) {
  const int64_t n = kernel.size(0), k = kernel.size(1), h = kernel.size(2), w = kernel.size(3);
  const int64_t H = torus.rows, W = torus.columns, half = W / 2 + 1, F = torus.frequencies();
  Tensor cosines = at::empty({F, h * w}, at::kDouble), sines = at::empty_like(cosines);
  for (int64_t f = 0; f < F; ++f) {
    for (int64_t a = 0; a < h * w; ++a) {
      const int64_t down = a / w - h / 2, right = a % w - w / 2;
      const double turns =
          double((f / half * down) % H) / double(H) + double((f % half * right) % W) / double(W);
      cosines.data_ptr<double>()[f * h * w + a] = std::cos(2 * M_PI * turns);
      sines.data_ptr<double>()[f * h * w + a] = std::sin(2 * M_PI * turns);
    }
  }
  const Tensor taps = kernel.reshape({1, n * k, h * w});
  const auto part = [&](const Tensor& wave) {  // (F, n, k)
    return affine(taps, constant(wave, kernel), {}).view({n, k, F}).permute({2, 0, 1});
  };
  const Tensor re = part(cosines), im = part(sines);
  return at::cat({at::cat({re, -im}, 2), at::cat({im, re}, 2)}, 1);
}

SpectralWeight spectral_weight(const Tensor& weight) {
  if (!has_kernel(weight)) return {weight, {}, {}, {}};
  return {weight, packed_each(weight.detach(), false), packed_each(weight.detach(), true),
          Unchanged({{"the weight", weight}})};
}

Tensor spectral_product(const Tensor& x, const SpectralWeight& w) {
  DEQ_CHECK(x.dim() == 3 && w.weight.dim() == 3 && x.size(0) == w.weight.size(0) &&
                x.size(2) == w.weight.size(2) && x.scalar_type() == w.weight.scalar_type(),
            "spectral_product: x of shape [{}] and a weight of [{}]; expected (F, B, k) and (F, n, "
            "k) of one type",
            fmt::join(x.sizes(), ", "), fmt::join(w.weight.sizes(), ", "));
  if (!w.panels.defined() || x.numel() == 0) return at::bmm(x, w.weight.transpose(1, 2));
  w.unchanged.check("spectral_product");
  if (!c10::GradMode::is_enabled()) return product(x.contiguous(), w.panels, w.weight.size(1));
  return ProductNode::apply(x, w.weight, w.panels, w.back);
}

}  // namespace deq::ops
