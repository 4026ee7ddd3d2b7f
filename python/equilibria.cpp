// Solves, equilibria with their gradients, and what the Jacobian says of them.
#include <ATen/ATen.h>
#include <torch/csrc/utils/pybind.h>

#include "deq/gradients/implicit.h"
#include "deq/gradients/jacobian.h"
#include "deq/gradients/spectral_radius.h"
#include "deq/layers/equilibrium.h"
#include "deq/solvers/limits.h"
#include "python/bindings.h"
#include "python/errors.h"
#include "python/function.h"
#include "python/reports.h"

namespace deq::python {
namespace {

using at::Tensor;

/// Dimensions that the tensors of a state have in common where rows are as the solver sees them.
int64_t shared_by(const Solver& solver) {
  const Scope scope = scope_of(solver);
  return by_position(scope) ? 2 : scope == Scope::Sample ? 1 : 0;
}

int64_t shared_by(const EquilibriumOptions& options) {
  const auto* implicit = options.gradient.get_if<Implicit>();
  const int64_t forward = shared_by(options.solver);
  return implicit ? std::max(forward, shared_by(implicit->solver)) : forward;
}

/// f and z0 as the core takes them.
struct Problem {
  std::shared_ptr<const State> state;
  Map f;
};

Problem problem_of(py::object f, py::handle z, int64_t shared, const char* what) {
  Problem problem{std::make_shared<const State>(z, shared, what), {}};
  problem.f = map_of(std::move(f), problem.state);
  return problem;
}

py::tuple solve_without_gradient(py::object f, py::handle z0, const EquilibriumOptions& options) {
  Problem problem = problem_of(std::move(f), z0, shared_by(options.solver), "z0");
  Solution solution;
  {
    const CoreCall call;
    solution = deq::solve(problem.f, problem.state->whole(), options.solver, options.stop);
    problem.f = {};
  }
  return py::make_tuple(problem.state->show(solution.z), SolveReport{std::move(solution.report)});
}

/// (limit, (z, report)) for each of `limits`, of one solve.
py::list solve_for_limits(py::object f, py::handle z0, const EquilibriumOptions& options,
                          const std::vector<int64_t>& limits) {
  Problem problem = problem_of(std::move(f), z0, shared_by(options.solver), "z0");
  std::vector<std::pair<int64_t, Solution>> found;
  {
    const CoreCall call;
    deq::solve_at_limits(problem.f, problem.state->whole(), options.solver, options.stop, limits,
                         [&](const AtLimit& at) { found.emplace_back(at.max_steps, at.solution); });
    problem.f = {};
  }
  py::list shown;
  for (auto& [limit, solution] : found)
    shown.append(py::make_tuple(limit, py::make_tuple(problem.state->show(solution.z),
                                                      SolveReport{std::move(solution.report)})));
  return shown;
}

/// Calls `on_adjoint`, where there is one, with each report of an adjoint solve.
std::function<void(const Report&)> adjoint_listener(py::object on_adjoint) {
  if (on_adjoint.is_none()) return {};
  return [listener = held(std::move(on_adjoint))](const Report& report) {
    const py::gil_scoped_acquire gil;
    try {
      py::handle(listener.get())(SolveReport{report});
    } catch (py::error_already_set& error) {
      throw_python_error(error);
    }
  };
}

py::tuple equilibrate_with_gradient(py::object f, py::handle z0, const EquilibriumOptions& options,
                                    py::object on_adjoint) {
  Problem problem = problem_of(std::move(f), z0, shared_by(options), "z0");
  Forward forward;
  forward.stop = options.stop;
  forward.solve = [&](const Map& map, const Tensor& start) {
    return deq::solve(map, start, options.solver, options.stop);
  };
  forward.on_adjoint = adjoint_listener(std::move(on_adjoint));
  Equilibrated found;
  {
    const CoreCall call;
    found = deq::equilibrate(problem.f, problem.state->whole(), options.gradient, forward);
    problem.f = {};
  }
  return py::make_tuple(problem.state->show(found.z),
                        SolveReport{std::move(found.report), found.latest_adjoint});
}

Tensor estimate_jacobian_loss(py::object f, py::handle z, int64_t probes) {
  Problem problem = problem_of(std::move(f), z, 0, "z");
  const CoreCall call;
  Tensor loss = deq::jacobian_loss(problem.f, problem.state->whole(), probes);
  problem.f = {};
  return loss;
}

SpectralRadius measure_spectral_radius(py::object f, py::handle z, int64_t max_products) {
  Problem problem = problem_of(std::move(f), z, 1, "z");
  const CoreCall call;
  SpectralRadius radius = deq::spectral_radius(problem.f, problem.state->whole(), max_products);
  problem.f = {};
  return radius;
}

void bind_spectral_radius(py::module_& module) {
  py::class_<SpectralRadius>(module, "SpectralRadius",
                             "The spectral radius of df/dz, for each sample.")
      .def_readonly("radius", &SpectralRadius::radius, "(B) double")
      .def_readonly("residual", &SpectralRadius::residual,
                    "(B) double, |v^T J - lambda v| / |lambda| of that eigenvalue")
      .def_readonly("moved", &SpectralRadius::moved,
                    "(B) double, the part of the radius that the rounding of J moves it by")
      .def_readonly("products", &SpectralRadius::products, "v^T J of the whole batch")
      .def_property_readonly("converged", &SpectralRadius::converged,
                             "whether every residual, and every part that rounding moves, is "
                             "at most 1e-3; a radius that is not converged may be far off");
  module.def("spectral_radius", &measure_spectral_radius);
}

}  // namespace

void bind_equilibria(py::module_& module) {
  module.def("solve", &solve_without_gradient);
  module.def("solve_at_limits", &solve_for_limits);
  module.def("equilibrate", &equilibrate_with_gradient);
  module.def("jacobian_loss", &estimate_jacobian_loss);
  bind_spectral_radius(module);
}

}  // namespace deq::python
