// A solver is any options struct with a scope that can start, from the layout or from f and the
// layout; one that looks for a beginning of its own has `begin` besides. Those with names are
// listed in solvers.cpp. To add one: its file, and its line there.
#pragma once

#include "deq/base/choice.h"
#include "deq/solvers/driver.h"

namespace deq {

/// Where the steps of a method begin, and what finding it took.
struct Beginning {
  at::Tensor z;
  int64_t evaluations = 0;  ///< of f, as many as all positions together are worth
};

/// What a solver's options can do.
struct SolverMethod : Held<SolverMethod> {
  template <class Method>
  struct Of;
  static const std::vector<Choice<SolverMethod>>& known();

  virtual Scope scope() const = 0;
  virtual void set_scope(Scope scope) = 0;
  /// The method's step and memory for one solve of f. Throws deq::Error for a scope that it does
  /// not have, and for an f that lacks what the method asks for besides values.
  virtual Propose start(const Map& f, const Layout& layout) const = 0;
  /// Of an f of which nothing is known.
  Propose start(const Layout& layout) const { return start(Map(), layout); }
  /// z0, or where the method begins in its place, before the first step.
  virtual Beginning begin(const Map& f, const at::Tensor& z0, const StopRule& stop,
                          const Layout& layout) const = 0;
};

/// One of the methods; Anderson unless told otherwise.
using Solver = Choice<SolverMethod>;

template <class Method>
struct SolverMethod::Of final : HeldAs<SolverMethod, Method> {
  using HeldAs<SolverMethod, Method>::HeldAs;
  Scope scope() const override { return this->value.scope; }
  void set_scope(Scope scope) override { this->value.scope = scope; }
  using SolverMethod::start;
  Propose start(const Map& f, const Layout& layout) const override {
    validate(this->value, Method::name);
    if constexpr (requires { this->value.start(f, layout); })
      return this->value.start(f, layout);
    else
      return this->value.start(layout);
  }
  Beginning begin(const Map& f, const at::Tensor& z0, const StopRule& stop,
                  const Layout& layout) const override {
    if constexpr (requires { this->value.begin(f, z0, stop, layout); })
      return this->value.begin(f, z0, stop, layout);
    else
      return {z0, 0};
  }
};

/// Solves z = f(z) from z0, shape (B, T, D) or see Layout. Never throws for non-convergence: ask
/// `report`. Throws deq::Error for options out of range and for an f that changes shape or type.
Solution solve(const Map& f, const at::Tensor& z0, const Solver& solver = {},
               const StopRule& stop = {}, Order order = Order::Forward);

inline Scope scope_of(const Solver& solver) { return solver->scope(); }
/// The same solver with another scope.
Solver with_scope(Solver solver, Scope scope);

}  // namespace deq
