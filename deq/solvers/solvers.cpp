#include "deq/solvers/solvers.h"

#include "deq/base/fields.h"
#include "deq/solvers/start.h"
#ifdef DEQ_WITH_CUDA
#include "deq/solvers/anderson_cuda.h"
#endif

namespace deq {

Solution solve(const Map& f, const at::Tensor& z0, const Solver& solver, const StopRule& stop,
               Order order) {
  return std::visit(
      [&](const auto& method) {
        validate(method, method.name);
        if (order == Order::Forward) check_start(f, z0);  // an adjoint's may well be NaN
        const Layout layout(z0, method.scope, order);
#ifdef DEQ_WITH_CUDA
        if constexpr (std::is_same_v<decltype(method), const Anderson&>) {
          if (cuda::takes(method, z0)) return cuda::iterate(f, z0, method, stop, layout);
        }
#endif
        return iterate(f, z0, method.start(layout), stop, layout);
      },
      solver);
}

Scope scope_of(const Solver& solver) {
  return std::visit([](const auto& method) { return method.scope; }, solver);
}

Solver with_scope(Solver solver, Scope scope) {
  std::visit([&](auto& method) { method.scope = scope; }, solver);
  return solver;
}

}  // namespace deq
