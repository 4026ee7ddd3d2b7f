#include "deq/layers/ode_stiff.h"

#include <ATen/ATen.h>
#include <ATen/Dispatch.h>

#include <algorithm>

namespace deq::ode {

using at::Tensor;

void Linearisation::refresh(Work& work, const Field& field) {
  const bool moved = std::count(work.known.begin(), work.known.end(), 0) > 0;
  if (dy_.defined() && !moved) return;
  const int64_t B = work.y.size(0), n = work.y.size(1);
  if (!dy_.defined()) {
    f = at::zeros({B, n}, work.y.options());
    dt = at::zeros({B, n}, work.y.options());
    dy_ = at::zeros({B, n, n}, work.y.options());
    matrix_ = at::zeros({B, n, n}, work.y.options());
    work.beside = {f, dt, dy_};
  }
  const Tensor y = work.head(work.y), t = work.times(0);
  work.head(f).copy_(field(t, y, work.index()));
  const OdeFunction::Jacobian found = field.jacobian(t, y, work.index());
  ++jacobians;
  work.head(dy_).copy_(found.y.detach());
  if (found.t.defined())
    work.head(dt).copy_(found.t.detach());
  else
    work.head(dt).zero_();
  work.known.assign(work.known.size(), 1);
}

void Linearisation::factor(const Work& work, double gamma) {
  const int64_t n = matrix_.size(1);
  const Tensor M = work.head(matrix_);
  at::neg_out(const_cast<Tensor&>(M), work.head(dy_));
  std::vector<double> diagonal;
  for (const double h : work.h) diagonal.push_back(1 / (h * gamma));
  M.diagonal(0, 1, 2).add_(column_of(diagonal, M).expand({work.rows, n}));
  factors_.factor(matrix_, work.rows);
  factorisations += work.rows;
}

}  // namespace deq::ode
