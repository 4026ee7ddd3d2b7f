#include "deq/solvers/solvers.h"

#include "deq/solvers/anderson.h"
#include "deq/solvers/broyden.h"
#include "deq/solvers/conjugate_residual.h"
#include "deq/solvers/descent.h"
#include "deq/solvers/douglas_rachford.h"
#include "deq/solvers/forward_backward.h"
#include "deq/solvers/peaceman_rachford.h"
#include "deq/solvers/picard.h"
#include "deq/solvers/start.h"
#include "deq/solvers/sweep.h"
#ifdef DEQ_WITH_CUDA
#include "deq/solvers/anderson_cuda.h"
#endif

namespace deq {

// The list.
const std::vector<Solver>& SolverMethod::known() {
  static const std::vector<Solver> list{Anderson{},        Broyden{},          Picard{},
                                        Sweep{},           PeacemanRachford{}, DouglasRachford{},
                                        ForwardBackward{}, Descent{},          ConjugateResidual{}};
  return list;
}

Solution solve(const Map& f, const at::Tensor& z0, const Solver& solver, const StopRule& stop,
               Order order) {
  check_start(f, z0);
  const Layout layout(z0, scope_of(solver), order);
  const Propose propose = solver->start(f, layout);
  const Beginning from = solver->begin(f, z0, stop, layout);
  const auto solved = [&] {
#ifdef DEQ_WITH_CUDA
    if (const auto* anderson = solver.get_if<Anderson>(); anderson && cuda::takes(*anderson, z0))
      return cuda::iterate(f, z0, *anderson, stop, layout);
#endif
    return iterate(f, from.z, propose, stop, layout);
  };
  Solution solution = solved();
  solution.report.evaluations += from.evaluations;
  if (order == Order::Forward) count_bad_starts(solution.report, z0, layout);
  return solution;
}

Solver with_scope(Solver solver, Scope scope) {
  solver->set_scope(scope);
  return solver;
}

}  // namespace deq
