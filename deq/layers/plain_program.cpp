#include "deq/layers/plain_program.h"

#include "deq/layers/exact_solver.h"

namespace deq {

std::vector<double> PlainProgram::solve(const ops::QuadraticLimits& limits) const {
  const ScaledMatrices matrices(shape, Q.data(), A.data(), G.data());
  const ScaledProgram program(matrices, q.data(), b.data(), h.data());
  if (!program.finite()) return {};
  ExactSolver solver(program, limits);
  if (!solver.approach() || !solver.settle()) return {};
  ExactAnswer answer;
  solver.write(answer);
  program.unscale(answer.z.data(), nullptr, nullptr);
  return answer.z;
}

}  // namespace deq
