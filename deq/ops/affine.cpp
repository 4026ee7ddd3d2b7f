#include "deq/ops/affine.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "deq/base/error.h"
#include "deq/ops/packed.h"
#include "deq/ops/weight_gradient.h"

namespace deq::ops {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

Tensor rows_of(const Tensor& x) { return x.reshape({-1, x.size(-1)}); }

void check(const Tensor& x, const Tensor& weight, const Tensor& base) {
  DEQ_CHECK(x.dim() == 3 && weight.dim() == 2 && x.size(2) == weight.size(1),
            "affine: x of shape [{}] and a weight of [{}]; expected (B, T, k) and (n, k)",
            fmt::join(x.sizes(), ", "), fmt::join(weight.sizes(), ", "));
  if (!base.defined()) return;
  const int64_t n = weight.size(0);
  const bool fits = base.dim() == 1 ? base.size(0) == n
                                    : base.sizes() == at::IntArrayRef({x.size(0), x.size(1), n});
  DEQ_CHECK(fits, "affine: a base of shape [{}]; expected [{}] or [{}, {}, {}]",
            fmt::join(base.sizes(), ", "), n, x.size(0), x.size(1), n);
}

/// In blocks of rows that stay in the cache; few rows share their columns out (packed_product()).
template <class T>
void multiply(const Tensor& rows, const Tensor& panels, bool add, const Tensor& out) {
  constexpr int64_t kFew = 6, kBlock = 48;
  const int64_t k = rows.size(1), n = out.size(1);
  at::parallel_for(0, rows.size(0), kFew, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row += kBlock)
      packed_product(std::min(kBlock, end - row), n, k, rows.data_ptr<T>() + row * k,
                     panels.data_ptr<T>(), out.data_ptr<T>() + row * n, add);
  });
}

/// x B + base, B (k, n) in panels; `base` without elements: none.
Tensor by_panels(const Tensor& x, const Tensor& panels, int64_t n, const Tensor& base) {
  const Tensor rows = rows_of(x).contiguous();
  const bool add = base.numel() > 0;
  const Tensor out = at::empty({x.size(0), x.size(1), n}, x.options().requires_grad(false));
  if (add) out.copy_(base);
  if (x.scalar_type() == at::kFloat) {
    multiply<float>(rows, panels, add, rows_of(out));
  } else {
    multiply<double>(rows, panels, add, rows_of(out));
  }
  return out;
}

Tensor by_library(const Tensor& x, const Tensor& weight, const Tensor& base) {
  const Tensor rows = rows_of(x);
  const Tensor y = !base.defined()
                       ? at::mm(rows, weight.t())
                       : at::addmm(base.dim() == 1 ? base : rows_of(base), rows, weight.t());
  return y.view({x.size(0), x.size(1), weight.size(0)});
}

/// dy W.
Tensor passed_on(const Tensor& dy, const Tensor& weight) {
  if (c10::GradMode::is_enabled()) return at::matmul(dy, weight);
  const Tensor none = at::empty({0}, dy.options());
  return by_panels(dy, packed_weight(weight.detach(), true), weight.size(1), none);
}

struct AffineNode : torch::autograd::Function<AffineNode> {
  static Tensor forward(AutogradContext* context, const Tensor& x, const Tensor& weight,
                        const Tensor& base, const Tensor& panels) {
    context->save_for_backward({x, weight});
    context->saved_data["base"] = base.numel() > 0 ? base.dim() : int64_t(0);
    return by_panels(x, panels, weight.size(0), base);
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    variable_list found(4);
    const Tensor& dy = gradients[0];
    if (!dy.defined()) return found;
    const variable_list saved = context->get_saved_variables();
    const Tensor &x = saved[0], &weight = saved[1];
    const int64_t base = context->saved_data["base"].toInt();
    if (context->needs_input_grad(0)) found[0] = passed_on(dy, weight);
    if (context->needs_input_grad(1)) found[1] = weight_gradient(rows_of(dy), rows_of(x));
    if (base > 0 && context->needs_input_grad(2))
      found[2] = base == 1 ? bias_gradient(rows_of(dy)) : dy;
    return found;
  }
};

}  // namespace

AffineWeight affine_weight(const Tensor& weight) {
  const bool known = weight.scalar_type() == at::kFloat || weight.scalar_type() == at::kDouble;
  if (!known || !weight.is_cpu()) return {weight, {}, {}};
  return {weight, packed_weight(weight.detach(), false), Unchanged({{"the weight", weight}})};
}

Tensor affine(const Tensor& x, const AffineWeight& w, const Tensor& base) {
  check(x, w.weight, base);
  if (!w.panels.defined() || x.numel() == 0) return by_library(x, w.weight, base);
  DEQ_CHECK(x.scalar_type() == w.weight.scalar_type(),
            "affine: x is {} and the weight {}; expected one type", c10::toString(x.scalar_type()),
            c10::toString(w.weight.scalar_type()));
  w.unchanged.check("affine");
  const Tensor none = base.defined() ? base : at::empty({0}, x.options().requires_grad(false));
  if (!c10::GradMode::is_enabled()) return by_panels(x, w.panels, w.weight.size(0), none);
  return AffineNode::apply(x, w.weight, none, w.panels);
}

}  // namespace deq::ops
