#include "deq/solvers/report.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <limits>

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

double Report::error_estimate() const {
  if (!rate.defined()) return std::numeric_limits<double>::quiet_NaN();
  const at::Tensor known = rate.isfinite();
  if (!known.any().item<bool>()) return std::numeric_limits<double>::quiet_NaN();
  return (residual / (1 - rate)).masked_select(known).max().item<double>();
}

namespace {

/// Rows that met no tolerance; others may be open because they depend on these.
int64_t rows_above(const Report& report) {
  return report.residual.gt(report.rel_tol)
      .logical_and(report.reason.eq(int64_t(Reason::MaxSteps)))
      .sum()
      .item<int64_t>();
}

/// Of layers with conditions of their own.
constexpr std::pair<Reason, const char*> kConditions[] = {
    {Reason::Infeasible, "no state meets the constraints"},
    {Reason::Unbounded, "the objective falls without end"},
    {Reason::NotConvex, "the objective curves downwards"},
    {Reason::NotUnique, "the state is one of many"},
    {Reason::StepUnderflow, "the step size fell to nothing"},
    {Reason::EventMissed, "no event before the end"},
};

/// What a user would not expect of a residual this small.
std::string far_from_the_solution(const Report& report) {
  constexpr double kFar = 10;
  const double error = report.error_estimate(), worst = report.worst_residual();
  if (!(error > kFar * std::max(worst, report.rel_tol))) return "";
  const double rate = report.rate.nan_to_num(0).max().item<double>();
  return fmt::format("; f passes on up to {:.4g} of a change, so that the error is about {:.0e}",
                     rate, error);
}

std::string why_it_stopped(const Report& report) {
  if (!report.reason.defined()) return "no solve is reported";
  const int64_t rows = report.reason.numel();
  const double worst = report.worst_residual();
  const bool rel_met = worst <= report.rel_tol * (1 + 1e-9);
  if (report.converged() && report.abs_tol > 0 && !rel_met) {
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
  for (const auto& [reason, what] : kConditions) {
    if (const int64_t such = report.count(reason))
      return fmt::format("{} in {} of {} rows", what, such, rows);
  }
  if (const int64_t bad = report.count(Reason::Diverged)) {
    return fmt::format(
        "diverged in {} of {} rows: |f(z) - z| grew {:.0e}-fold within {} evaluations", bad, rows,
        kDivergence, report.evaluations);
  }
  const int64_t open = report.count(Reason::MaxSteps), above = rows_above(report);
  const std::string waiting =
      open > above ? fmt::format(", which {} more wait for", open - above) : "";
  return fmt::format("stopped after {} steps: residual {:.1e} > rel_tol {:.1e} in {} of {} rows{}",
                     report.max_steps, worst, report.rel_tol, above, rows, waiting);
}

}  // namespace

std::string describe(const Report& report) {
  return why_it_stopped(report) + far_from_the_solution(report);
}

}  // namespace deq
