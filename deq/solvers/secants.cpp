#include "deq/solvers/secants.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

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

Tensor Secants::moved(const Tensor& z) const {
  if (z_.empty()) return at::ones({z.size(0)}, at::kBool);
  return z.ne(seen(0).z).any(1);
}

void Secants::write(int64_t slot, const Tensor& samples, const Tensor& z, const Tensor& fz) {
  if (samples.size(0) == z.size(0)) {
    z_[size_t(slot)].copy_(z);
    fz_[size_t(slot)].copy_(fz);
  } else if (samples.size(0) > 0) {
    z_[size_t(slot)].index_copy_(0, samples, z.index_select(0, samples));
    fz_[size_t(slot)].index_copy_(0, samples, fz.index_select(0, samples));
  }
}

Tensor Secants::see(const Tensor& z, const Tensor& fz) {
  const c10::AutoGradMode no_tape(false);
  const Tensor rows = rows_of(z.detach()), images = rows_of(fz.detach());
  const Tensor moves = moved(rows);
  if (!count_.defined()) count_ = at::zeros({rows.size(0)}, rows.options().dtype(at::kLong));
  if (int64_t(z_.size()) <= memory_) {  // as many as a sample has moved
    z_.push_back(at::zeros_like(rows));
    fz_.push_back(at::zeros_like(rows));
  }
  const Tensor slots = count_.remainder(memory_ + 1);
  for (size_t slot = 0; slot < z_.size(); ++slot)
    write(int64_t(slot), slots.eq(int64_t(slot)).logical_and_(moves).nonzero().view(-1), rows,
          images);
  count_.add_(moves);
  return fz;
}

Secants::Seen Secants::seen(int64_t ago) const {
  const Tensor slot = (count_ - 1 - ago).remainder(memory_ + 1);
  Seen found{at::zeros_like(z_[0]), at::zeros_like(z_[0]), (count_ > ago).view({-1, 1})};
  for (size_t s = 0; s < z_.size(); ++s) {
    const Tensor samples = slot.eq(int64_t(s)).nonzero().view(-1);
    if (samples.size(0) == slot.size(0)) return {z_[s], fz_[s], found.known};
    if (samples.size(0) == 0) continue;
    found.z.index_copy_(0, samples, z_[s].index_select(0, samples));
    found.fz.index_copy_(0, samples, fz_[s].index_select(0, samples));
  }
  return found;
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
  for (int64_t ago = 0; ago < memory_ && !z_.empty(); ++ago) {
    const Seen from = seen(ago + 1), to = seen(ago);
    if (!from.known.any().item<bool>()) break;
    Tensor sum = to.fz - from.fz;  // s + y is the difference of f's values
    Tensor y = sum - (to.z - from.z);
    // A step that is not finite tells nothing, and must not reach the others.
    const Tensor known = norms(y).isfinite().logical_and_(norms(sum).isfinite());
    const Tensor lost = known.logical_and_(from.known).logical_not_();
    y = y.masked_fill(lost, 0);
    sum = sum.masked_fill(lost, 0);
    const Tensor size = at::maximum(norms(y), norms(to.fz));
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
  z_.clear();
  fz_.clear();
}

Tensor Secants::adjoint(const Tensor& g) const {
  if (differences_.empty()) return g;
  const Tensor rows = rows_of(g);
  return ops::row_mix(-ops::row_dots(sums_, rows), differences_, rows).view(g.sizes());
}

}  // namespace deq
