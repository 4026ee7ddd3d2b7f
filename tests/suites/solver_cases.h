// Every solver of the list, in every scope that it has.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "deq/solvers/solvers.h"

namespace deq::testing {

struct SolverCase {
  std::string name;
  Solver solver;
  Scope scope;
  at::ScalarType type;

  bool is_double() const { return type == at::kDouble; }
  /// Tight, but within reach of the type.
  StopRule tight() const {
    return {.max_steps = 300, .rel_tol = is_double() ? 1e-11 : 1e-5, .abs_tol = 0};
  }
  double error() const { return is_double() ? 1e-9 : 2e-4; }
};

inline bool has_scope(const Solver& solver, Scope scope) {
  try {
    const Layout layout(at::zeros({2, 3, 4}), scope, Order::Forward);
    solver->start(layout);
    return true;
  } catch (const Error&) {
    return false;
  }
}

/// Whether it solves an f of which nothing is known.
inline bool takes_any_map(const Solver& solver) {
  try {
    solve([](const at::Tensor& z) { return 0.5 * z + 1; }, at::zeros({1, 2, 1}), solver);
    return true;
  } catch (const Error&) {
    return false;
  }
}

/// With their defaults; but for those that ask for more than an f (tests/solvers has them).
inline std::vector<Solver> every_solver() {
  std::vector<Solver> all = SolverMethod::known();
  std::erase_if(all, [](const Solver& solver) { return !takes_any_map(solver); });
  return all;
}
inline std::string name_of(const Solver& solver) { return solver.name(); }

inline std::vector<SolverCase> solver_cases() {
  std::vector<SolverCase> cases;
  for (const Solver& solver : every_solver()) {
    for (const Scope scope : {Scope::Sample, Scope::Position, Scope::Causal, Scope::Whole}) {
      if (!has_scope(solver, scope)) continue;
      for (const at::ScalarType type : {at::kFloat, at::kDouble}) {
        cases.push_back({name_of(solver) + "_" + Names<Scope>::values[size_t(scope)] + "_" +
                             c10::toString(type),
                         with_scope(solver, scope), scope, type});
      }
    }
  }
  return cases;
}

struct PrintName {
  template <class Info>
  std::string operator()(const Info& info) const {
    std::string name = info.param.name;
    for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
    return name;
  }
};

inline void PrintTo(const SolverCase& c, std::ostream* out) { *out << c.name; }

}  // namespace deq::testing
