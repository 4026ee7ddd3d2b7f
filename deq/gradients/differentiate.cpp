#include "deq/gradients/differentiate.h"

#include <ATen/ATen.h>

#include <cmath>
#include <limits>

#include "deq/solvers/solver_loop.h"

namespace deq {

using at::Tensor;

namespace {

/// Residuals of one state by two evaluations of f differ by rounding; by more they are different.
constexpr double kSlack = 2;

/// How many rows of one size the state has by which the report's rows can be told apart: the
/// report's own, or samples where those are parts of a sample.
int64_t groups_of(const Report& report, const Tensor& z) {
  const int64_t R = report.reason.numel();
  const int64_t B = z.dim() >= 2 ? z.size(0) : 1, T = z.dim() >= 3 ? z.size(1) : 1;
  if (R == B * T || R == 1) return R;
  DEQ_CHECK(B > 0 && R % B == 0,
            "a report of {} rows for a state [{}]; expected rows of {} samples", R,
            fmt::join(z.sizes(), ", "), B);
  return B;
}

}  // namespace

void confirm(Report& report, const Tensor& z, const Tensor& fz, const StopRule& stop) {
  if (!report.reason.defined() || z.numel() == 0) return;
  const int64_t groups = groups_of(report, z), parts = report.reason.numel() / groups;
  const auto rows = [&](const Tensor& t) { return t.detach().reshape({groups, -1}).contiguous(); };
  const Measured now(rows(z), rows(fz), stop);
  // Reports are shared: what was said elsewhere stays.
  report.residual = report.residual.clone();
  report.reason = report.reason.clone();
  double* residual = report.residual.data_ptr<double>();
  uint8_t* reason = report.reason.data_ptr<uint8_t>();
  for (int64_t r = 0; r < groups * parts; ++r) {
    const double found = now.residual[size_t(r / parts)], ratio = now.ratio[size_t(r / parts)];
    const bool as_said = found <= kSlack * residual[r] || ratio <= kSlack;
    if (as_said && !std::isnan(found)) continue;
    const bool finite = std::isfinite(found);
    residual[r] = finite ? found : kInfinity;
    if (!finite) reason[r] = uint8_t(Reason::NonFinite);
    if (reason[r] == uint8_t(Reason::Converged)) reason[r] = uint8_t(Reason::MaxSteps);
  }
}

Tensor marked(const Tensor& t, const Report& report) {
  if (t.numel() == 0 || report.count(Reason::NonFinite) == 0) return t;
  const int64_t groups = groups_of(report, t);
  const Tensor lost =
      report.reason.eq(int64_t(Reason::NonFinite)).view({groups, -1}).any(1).to(t.device());
  std::vector<int64_t> shape(size_t(t.dim()), 1);  // of (B), (B, T) or one number
  if (groups > 1) shape[0] = t.size(0);
  if (groups > 1 && groups > t.size(0)) shape[1] = t.size(1);
  const Tensor factor = at::ones({groups}, t.options().requires_grad(false))
                            .masked_fill_(lost, std::numeric_limits<double>::quiet_NaN());
  return t * factor.view(shape);
}

}  // namespace deq
