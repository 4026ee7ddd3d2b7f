#include "deq/solvers/report.h"

#include <ATen/ATen.h>

namespace deq {

int64_t Report::count(Reason wanted) const {
  return reason.defined() ? reason.eq(int64_t(wanted)).sum().item<int64_t>() : 0;
}

bool Report::converged() const {
  return reason.defined() && count(Reason::Converged) == reason.numel();
}

double Report::converged_share() const {
  if (!reason.defined()) return 0;
  if (reason.numel() == 0) return 1;
  return double(count(Reason::Converged)) / double(reason.numel());
}

double Report::worst_residual() const {
  return residual.defined() && residual.numel() ? residual.max().item<double>() : 0;
}

double Report::mean_residual() const {
  return residual.defined() && residual.numel() ? residual.mean().item<double>() : 0;
}

std::string describe(const Report& report) {
  if (!report.reason.defined()) return "no solve is reported";
  const int64_t rows = report.reason.numel();
  const double worst = report.worst_residual();
  if (report.converged() && report.abs_tol > 0 && worst > report.rel_tol) {
    return fmt::format(
        "converged: |f(z) - z| <= abs_tol {:.1e} (residual {:.1e}) after {} evaluations",
        report.abs_tol, worst, report.evaluations);
  }
  if (report.converged()) {
    return fmt::format("converged: residual {:.1e} <= rel_tol {:.1e} after {} evaluations", worst,
                       report.rel_tol, report.evaluations);
  }
  if (report.bad_starts > 0) {
    return fmt::format("z0 is not finite in {} of {} rows; expected finite numbers",
                       report.bad_starts, rows);
  }
  if (const int64_t bad = report.count(Reason::NonFinite)) {
    return fmt::format("f(z) is not finite in {} of {} rows after {} evaluations", bad, rows,
                       report.evaluations);
  }
  if (const int64_t bad = report.count(Reason::Diverged)) {
    return fmt::format(
        "diverged in {} of {} rows: |f(z) - z| grew {:.0e}-fold within {} evaluations", bad, rows,
        kDivergence, report.evaluations);
  }
  return fmt::format("stopped after {} steps: residual {:.1e} > rel_tol {:.1e} in {} of {} rows",
                     report.max_steps, worst, report.rel_tol, report.count(Reason::MaxSteps), rows);
}

}  // namespace deq
