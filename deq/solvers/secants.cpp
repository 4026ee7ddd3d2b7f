#include "deq/solvers/secants.h"

#include <ATen/ATen.h>

#include "deq/ops/rows.h"
#include "deq/solvers/layout.h"

namespace deq {

using at::Tensor;

namespace {

/// What is left of a step beside the newer ones is rounding below this share of the step, or of f:
/// the square root of a number's precision.
double rounding(const Tensor& y) { return y.scalar_type() == at::kDouble ? 1.5e-8 : 3.5e-4; }

Tensor norms(const Tensor& rows) { return ops::row_dots({rows}, rows).sqrt_(); }  // (B, 1) double

Tensor rows_of(const Tensor& z) { return Layout(z, Scope::Sample, Order::Forward).fold(z); }

}  // namespace

Tensor Secants::see(const Tensor& z, const Tensor& fz) {
  seen_.push_back({z, fz.detach()});
  if (int64_t(seen_.size()) > memory_ + 1) seen_.pop_front();
  return fz;
}

Map Secants::watch(const Map& f) {
  return Map([this, f](const Tensor& z) { return see(z, f(z)); },
             [this, f]() -> Map::Series {
               return
                   [this, series = f.series()](const Tensor& z, const std::vector<int64_t>& done) {
                     return see(z, series(z, done));
                   };
             });
}

/// With Y = Q R, newest first: Q in differences_, (S + Y) R^{-1} in sums_, so that H = -I + sums_
/// differences_^T. What depends on newer steps is zero.
void Secants::finish() {
  for (size_t i = seen_.size(); i-- > 1;) {
    const Seen &from = seen_[i - 1], &to = seen_[i];
    Tensor sum = rows_of(to.fz - from.fz);  // s + y is the difference of f's values
    Tensor y = sum - rows_of(to.z - from.z);
    // A step that is not finite tells nothing, and must not reach the others.
    const Tensor lost = norms(y).isfinite().logical_and_(norms(sum).isfinite()).logical_not_();
    y = y.masked_fill(lost, 0);
    sum = sum.masked_fill(lost, 0);
    const Tensor size = at::maximum(norms(y), norms(rows_of(to.fz)));
    if (!differences_.empty()) {
      const Tensor along = -ops::row_dots(differences_, y);
      y = ops::row_mix(along, differences_, y);
      sum = ops::row_mix(along, sums_, sum);
    }
    const Tensor left = norms(y);
    const Tensor scale = at::where(left > rounding(y) * size, 1 / left, at::zeros_like(left));
    differences_.push_back(ops::row_mix(scale, {y}));
    sums_.push_back(ops::row_mix(scale, {sum}));
  }
  seen_.clear();
}

Tensor Secants::adjoint(const Tensor& g) const {
  if (differences_.empty()) return g;
  const Tensor rows = rows_of(g);
  return ops::row_mix(-ops::row_dots(sums_, rows), differences_, rows).view(g.sizes());
}

}  // namespace deq
