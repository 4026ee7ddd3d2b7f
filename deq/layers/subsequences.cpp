#include "deq/layers/subsequences.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <limits>

#include "deq/solvers/sweep.h"

namespace deq {

using at::Tensor;

namespace {

/// Rows (B n) of each part side by side, (B sum n): the order of one solve of all positions.
Tensor side_by_side(const std::vector<Tensor>& parts, int64_t batch) {
  std::vector<Tensor> columns;
  for (const Tensor& part : parts) columns.push_back(part.reshape({batch, -1}));
  return at::cat(columns, 1).reshape({-1});
}

/// The traces (steps, R) of the parts, each row filled up with its last value.
Tensor joined_trace(const std::vector<Report>& parts, int64_t batch) {
  int64_t steps = 0;
  for (const Report& part : parts) steps = std::max(steps, part.trace.size(0));
  std::vector<Tensor> rows;
  for (int64_t step = 0; step < steps; ++step) {
    std::vector<Tensor> at_step;
    for (const Report& part : parts)
      at_step.push_back(part.trace.select(0, std::min(step, part.trace.size(0) - 1)));
    rows.push_back(side_by_side(at_step, batch));
  }
  return rows.empty() ? Tensor() : at::stack(rows);
}

Report joined(const std::vector<Report>& parts, int64_t batch) {
  Report report = parts.front();
  std::vector<Tensor> reason, residual, steps, rate;
  report.evaluations = 0;
  for (const Report& part : parts) {
    reason.push_back(part.reason);
    residual.push_back(part.residual);
    steps.push_back(part.steps);
    rate.push_back(part.rate);
    report.evaluations += part.evaluations;
  }
  report.reason = side_by_side(reason, batch);
  report.residual = side_by_side(residual, batch);
  report.steps = side_by_side(steps, batch);
  report.rate = side_by_side(rate, batch);
  report.trace = joined_trace(parts, batch);
  return report;
}

}  // namespace

void check_parts(const Solver& solver, int64_t length) {
  DEQ_CHECK(
      length == 0 || !solver.is<Sweep>(),
      "subsequence = {}: solver sweep goes from position to position as it is; expected 0, or "
      "another solver",
      length);
}

Solution solve_by_parts(const Bound& f, const Tensor& z0, int64_t length, const Solver& solver,
                        const StopRule& stop) {
  DEQ_CHECK(f.f.part(), "subsequence = {}: positions of this cell depend on later ones; expected 0",
            length);
  check_parts(solver, length);
  DEQ_CHECK(length >= 1, "subsequence = {}; expected >= 1", length);
  c10::NoGradGuard no_tape;
  if (z0.size(0) == 0) return solve(f, z0, solver, stop);
  const int64_t T = z0.size(1);
  Tensor z = z0.narrow(1, 0, 0);
  std::vector<Report> reports;
  // Whose parts stand behind each other in the report.
  const int64_t samples = scope_of(solver) == Scope::Whole ? 1 : z0.size(0);
  Tensor open = at::zeros({samples, 1}, at::kBool);  // did not converge
  for (int64_t first = 0; first < T; first += length) {
    const int64_t count = std::min(length, T - first);
    Solution part =
        solve(f.f.part()(z, first, count), z0.narrow(1, first, count).contiguous(), solver, stop);
    z = at::cat({z, part.z}, 1);
    // What stands behind states that did not converge has not converged either.
    Tensor reason = part.report.reason.view({samples, -1});
    reason = reason.masked_fill(reason.eq(int64_t(Reason::Converged)).logical_and(open),
                                int64_t(Reason::MaxSteps));
    open = open.logical_or(reason.ne(int64_t(Reason::Converged)).any(1, true));
    part.report.reason = reason.reshape({-1});
    reports.push_back(std::move(part.report));
  }
  if (reports.empty()) return solve(f, z0, solver, stop);
  return {z, joined(reports, samples)};
}

}  // namespace deq
