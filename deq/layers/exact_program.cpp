#include "deq/layers/exact_program.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "deq/layers/certificates.h"
#include "deq/layers/exact_solver.h"

namespace deq {

using ops::QuadraticLimits;

namespace {

/// Numbers for a program without a solution: finite ones.
void write_none(const ScaledProgram& program, ExactAnswer& answer) {
  const auto [n, p, m] = program.shape();
  answer.z.assign(size_t(n), 0.0);
  answer.nu.assign(size_t(p), 0.0);
  answer.lam.assign(size_t(m), 0.0);
  answer.active.assign(size_t(m), 0);
  answer.residual = std::numeric_limits<double>::infinity();
}

bool prove_none(const ScaledProgram& program, const QuadraticLimits& limits, ExactAnswer& answer) {
  answer.certificate = farkas_vector(program, limits);
  answer.reason = Reason::Infeasible;
  if (!answer.certificate.empty()) return true;
  answer.certificate = ray(program, limits);
  answer.reason = Reason::Unbounded;
  if (!answer.certificate.empty()) return true;
  answer.reason = Reason::MaxSteps;
  return false;
}

}  // namespace

ExactAnswer solve_exactly(const ScaledProgram& program, const QuadraticLimits& limits,
                          const Degenerate& degenerate) {
  ExactAnswer answer;
  if (!program.finite()) {
    write_none(program, answer);
    answer.reason = Reason::NonFinite;
    return answer;
  }
  if (!program.matrices().flat) answer.certificate = negative_curvature(program, limits.concave);
  if (!answer.certificate.empty()) {
    write_none(program, answer);
    answer.reason = Reason::NotConvex;
    return answer;
  }
  ExactSolver solver(program, limits);
  const bool near = solver.approach();
  bool exact = near && solver.settle();
  if (!exact && prove_none(program, limits, answer)) {
    const Reason reason = answer.reason;
    write_none(program, answer);
    answer.reason = reason;
    return answer;
  }
  exact = exact || (!near && solver.settle());
  if (!exact) {
    solver.write(answer);
    const auto finite = [](const std::vector<double>& x) {
      return std::ranges::all_of(x, [](double value) { return std::isfinite(value); });
    };
    if (!finite(answer.z) || !finite(answer.nu) || !finite(answer.lam)) write_none(program, answer);
    return answer;
  }
  const bool unique = solver.unique();
  const bool least = !unique && solver.to_least_norm();
  solver.choose_gradient(degenerate);
  solver.write(answer);
  answer.reason = unique ? Reason::Converged : least ? Reason::NotUnique : Reason::MaxSteps;
  if (unique) answer.factor = solver.take_factor();
  return answer;
}

}  // namespace deq
