#include "deq/cells/implicit.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/types.h>

#include "deq/cells/monotone.h"
#include "deq/cells/perron_frobenius.h"
#include "deq/cells/project_rows.h"
#include "deq/ops/affine.h"
#include "deq/ops/elimination.h"

namespace deq {

using at::Tensor;

namespace {

/// A bound that a projection has met may come out above kappa by rounding.
constexpr double kSlack = 1 + 1e-5;
constexpr double kSlackOfDoubles = 1 + 1e-12;

/// A where lambda_pf(|A|) <= kappa; otherwise what of it stands in an irreducible piece is
/// projected so that sum_j |a_ij| v_j / v_i <= kappa there, v the piece's eigenvector, and the rest
/// stays.
Tensor with_small_eigenvalue(const Tensor& A, double kappa) {
  const PerronFrobenius found = perron_frobenius(A);
  if (found.upper <= kappa * (A.scalar_type() == at::kDouble ? kSlackOfDoubles : kSlack)) return A;
  const auto like = A.options().requires_grad(false);
  const Tensor v = found.vector, weights = (v.unsqueeze(0) / v.unsqueeze(1)).to(like);
  const Tensor piece = at::tensor(found.piece, at::kLong);
  const Tensor within = piece.unsqueeze(0).eq(piece.unsqueeze(1)).to(like);
  return project_rows_l1(A * within, kappa, weights) + A * (1 - within);
}

}  // namespace

std::shared_ptr<Cell> WellPosed::make(const CellPlace&) const {
  return std::make_shared<WellPosedCell>(*this);
}

WellPosedCell::WellPosedCell(const WellPosed& options) : options_(options) {
  validate(options, "WellPosed");
  a_ = register_parameter("A", torch::zeros({options.width, options.width}));
  inject_ =
      register_module("inject", std::make_shared<Linear>(input_width(), options.width,
                                                         /*with_bias=*/true, /*normalised=*/false));
  initialise(0.02);
}

void WellPosedCell::initialise(double std) {
  c10::AutoGradMode no_tape(false);
  a_.normal_(0, std);
  inject_->initialise(std);
}

double WellPosedCell::operations(int64_t batch, int64_t positions, int64_t) const {
  return 2.0 * double(batch * positions) * double(options_.width * options_.width);
}

Tensor WellPosedCell::weight() const {
  return options_.condition == WellPosedness::InfinityNorm
             ? project_rows_l1(a_, options_.kappa)
             : with_small_eigenvalue(a_, options_.kappa);
}

void WellPosedCell::project() {
  c10::AutoGradMode no_tape(false);
  const Tensor projected = weight();
  if (!projected.equal(a_)) a_.copy_(projected);
}

Tensor WellPosedCell::sensitivity() const {
  c10::AutoGradMode no_tape(false);
  const Tensor A = weight().to(at::kDouble).abs(), B = inject_->weight().to(at::kDouble).abs();
  return at::mm(ops::inverse(at::eye(A.size(0), A.options()) - A), B);
}

std::vector<Bound> WellPosedCell::bind_levels(const Tensor& x, const std::vector<History>& levels) {
  check_bound_shapes("WellPosedCell", x, input_width(), options_.width, levels);
  const bool trains = is_training() && c10::GradMode::is_enabled();
  if (trains) project();
  const Tensor injected = ops::affine(x, ops::affine_weight(inject_->weight()), inject_->bias());
  const Map f = affine_equilibrium(trains ? a_ : weight(), injected, options_.activation,
                                   /*margin=*/0, options_.direct);
  std::vector<Bound> bound(levels.size());
  for (Bound& one : bound) {
    one.f = f;
    one.extend = [](const Tensor&, int64_t) { return History{}; };
  }
  return bound;
}

}  // namespace deq
