#include "deq/solvers/secants.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <cmath>
#include <map>

#include "deq/base/epsilon.h"
#include "deq/ops/rows.h"
#include "deq/solvers/layout.h"
#include "deq/solvers/solver_loop.h"

namespace deq {

using at::Tensor;

namespace {

/// What is left of a step beside the newer ones is rounding below this share of the step, or of f:
/// the square root of a number's precision.
double rounding(const Tensor& y) { return std::sqrt(epsilon_of(y.scalar_type())); }

Tensor norms(const Tensor& rows) { return ops::row_dots({rows}, rows).sqrt_(); }  // (B, 1) double

/// Rows `index` of `from` to the same rows of `to`.
void copy_rows(const Tensor& from, const std::vector<int64_t>& index, Tensor to) {
  if (int64_t(index.size()) == from.size(0)) {
    to.copy_(from);
    return;
  }
  const Tensor rows = at::tensor(index, at::kLong).to(from.device());
  to.index_copy_(0, rows, from.index_select(0, rows));
}

Tensor rows_of(const Tensor& z) { return Layout(z, Scope::Sample, Order::Forward).fold(z); }

}  // namespace

Tensor Secants::see(const Tensor& z, const Tensor& fz) {
  const c10::AutoGradMode no_tape(false);
  const Tensor rows = rows_of(z.detach()), images = rows_of(fz.detach());
  const Tensor moves = (last_.defined() ? rows.ne(last_).any(1) : rows.new_ones({rows.size(0)}))
                           .to(at::kCPU, at::kBool);
  last_ = rows;
  count_.resize(size_t(rows.size(0)), 0);
  if (int64_t(z_.size()) <= memory_) {  // as many as a sample has moved
    z_.push_back(at::zeros_like(rows));
    fz_.push_back(at::zeros_like(rows));
  }
  std::map<int64_t, std::vector<int64_t>> samples;  // by slot
  for (size_t b = 0; b < count_.size(); ++b) {
    if (moves[int64_t(b)].item<bool>()) samples[count_[b]++ % (memory_ + 1)].push_back(int64_t(b));
  }
  for (const auto& [slot, own] : samples) {
    copy_rows(rows, own, z_[size_t(slot)]);
    copy_rows(images, own, fz_[size_t(slot)]);
  }
  return fz;
}

Secants::Seen Secants::seen(int64_t ago) const {
  Seen found{at::zeros_like(last_), at::zeros_like(last_), at::zeros({last_.size(0)}, at::kBool)};
  std::map<int64_t, std::vector<int64_t>> samples;  // by slot
  for (size_t b = 0; b < count_.size(); ++b) {
    if (count_[b] > ago) samples[(count_[b] - 1 - ago) % (memory_ + 1)].push_back(int64_t(b));
  }
  for (const auto& [slot, own] : samples) {
    copy_rows(z_[size_t(slot)], own, found.z);
    copy_rows(fz_[size_t(slot)], own, found.fz);
    for (const int64_t b : own) found.known[b] = true;
  }
  found.known = found.known.to(last_.device()).view({-1, 1});
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
  last_.reset();
}

Tensor Secants::adjoint(const Tensor& g) const {
  if (differences_.empty()) return g;
  const Tensor rows = rows_of(g);
  return ops::row_mix(-ops::row_dots(sums_, rows), differences_, rows).view(g.sizes());
}

}  // namespace deq
