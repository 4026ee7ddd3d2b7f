// Ordinary differential equations as a layer: y' = f(t, y), every sample with steps of its own.
#pragma once

#include <ATen/core/Tensor.h>

#include <concepts>
#include <functional>
#include <initializer_list>
#include <limits>
#include <type_traits>
#include <utility>
#include <variant>

#include "deq/gradients/unrolled.h"
#include "deq/layers/ode_methods.h"
#include "deq/solvers/report.h"

namespace deq {

/// f(t, y): t (b), y (b, ...) -> (b, ...), row by row, of the type of y. The batch that f is given
/// is those samples that are still on their way: an f with a parameter for each sample takes
/// `rows`, (b) int64, the numbers of the samples in y0, as a third argument. f must not write to
/// what it is given. With gradients on it is called in backward too, by whichever thread runs that,
/// so that it must own what it captured and give the same every time.
class OdeFunction {
 public:
  using Evaluate =
      std::function<at::Tensor(const at::Tensor& t, const at::Tensor& y, const at::Tensor& rows)>;
  /// df/dy (b, n, n), n numbers of a sample's state, and df/dt (b, n), undefined where f does not
  /// depend on t.
  struct Jacobian {
    at::Tensor y, t = {};
  };
  using Differentiate =
      std::function<Jacobian(const at::Tensor& t, const at::Tensor& y, const at::Tensor& rows)>;

  OdeFunction() = default;
  template <class F>
  requires(!std::derived_from<std::remove_cvref_t<F>, OdeFunction> &&
           (std::is_invocable_r_v<at::Tensor, F&, const at::Tensor&, const at::Tensor&> ||
            std::is_invocable_r_v<at::Tensor, F&, const at::Tensor&, const at::Tensor&,
                                  const at::Tensor&>))
      OdeFunction(F f)  // NOLINT: any callable is one
      : evaluate_(with_rows(std::move(f))) {}

  /// For stiff methods; otherwise they have it by vector-Jacobian products, all rows of it in one
  /// evaluation. Taped, where gradients are on: Rodas5P is differentiated through it.
  OdeFunction& set_jacobian(Differentiate jacobian) {
    jacobian_ = std::move(jacobian);
    return *this;
  }
  const Differentiate& jacobian() const { return jacobian_; }

  at::Tensor operator()(const at::Tensor& t, const at::Tensor& y, const at::Tensor& rows) const {
    return evaluate_(t, y, rows);
  }
  explicit operator bool() const { return bool(evaluate_); }

 private:
  template <class F>
  static Evaluate with_rows(F f) {
    if constexpr (std::is_invocable_v<F&, const at::Tensor&, const at::Tensor&,
                                      const at::Tensor&>) {
      return f;
    } else {
      return [f = std::move(f)](const at::Tensor& t, const at::Tensor& y,
                                const at::Tensor&) mutable { return f(t, y); };
    }
  }

  Evaluate evaluate_;
  Differentiate jacobian_;
};

/// t_0, ..., t_{T-1}: (T), or (T, B) with times of its own for each sample. Rising or falling;
/// times may be repeated.
struct OdeTimes {
  at::Tensor value;
  OdeTimes(at::Tensor times) : value(std::move(times)) {}  // NOLINT: times are times
  OdeTimes(std::initializer_list<double> times);           // NOLINT
};

/// Which way g passes zero.
enum class Crossing : int64_t { Any, Rising, Falling };
template <>
struct Names<Crossing> {
  static constexpr const char* values[] = {"any", "rising", "falling"};
};

/// The first zero of g(t, y), (b), behind t_0. g is differentiated; it may take `rows` as f does.
///
/// g is looked at in `probes` points of each step, and between them where it comes near to zero: a
/// pair of zeros closer to each other than that may be passed over. A zero at t_0 itself, to
/// rounding of t and y and of the steps that may have led there, is none: what starts at the state
/// of an event goes on to the next. A zero at the end is one, to rounding. What g is multiplied
/// with does not matter.
struct OdeEvent {
  OdeFunction g;
  Crossing crossing = Crossing::Any;
  int64_t probes = 8;
  /// g only touches zero where |dg/dt| times the step is at most this part of |g| in the step.
  double grazing = 1e-4;

  OdeEvent() = default;
  template <class G>
  requires std::is_constructible_v<OdeFunction, G> OdeEvent(G event,  // NOLINT: a g is an event
                                                            Crossing way = Crossing::Any)
      : g(std::move(event)), crossing(way) {}
  explicit operator bool() const { return bool(g); }

  static void fields(auto& self, auto&& field) {
    field("crossing", self.crossing, "which way g passes zero");
    field("probes", self.probes, "points of each step in which g is looked at", between(1, 1024));
    field("grazing", self.grazing, "|dg/dt| h / |g| at which an event only touches",
          half_open(0, 1));
  }
};

// How dy/d(y0, what f captured, times) is had; all but Unrolled can be differentiated once. Sizes
// of steps are kept (16 bytes a step and sample), and are not differentiated.
//
//   Checkpointed  of the discrete solution, exact; keeps every sqrt(N)-th of N steps' states
//   Unrolled      the same, on the tape; memory grows with the steps
//   Reversible    of a reversible scheme's discrete solution, exact; keeps no state but the last
//   Interpolated  the adjoint equation along the kept continuous extension; to tolerance
//   Backsolve     the adjoint equation along y solved backwards; to tolerance where that is stable
//
// The fields of Checkpointed and Unrolled are of fixed points, and mean nothing here.

/// McCallum and Foster's reversible scheme of an explicit method (ode_reversible.h): two of its
/// steps a step, which end at every time that is asked for.
struct Reversible {
  static constexpr const char* name = "reversible";
  double coupling = 0.999;  ///< of the two states
  static void fields(auto& self, auto&& field) {
    field("coupling", self.coupling, "how far one state follows the other", left_open(0.5, 1));
  }
};
/// Of any method; a stiff one's adjoint equation is solved by Kvaerno5.
struct Interpolated {
  static constexpr const char* name = "interpolated";
  static void fields(auto&, auto&&) {}
};
/// Of explicit methods. Where the equation is unstable backwards, the gradient is NaN or wrong.
struct Backsolve {
  static constexpr const char* name = "backsolve";
  static void fields(auto&, auto&&) {}
};
using OdeGradient = std::variant<Checkpointed, Unrolled, Reversible, Interpolated, Backsolve>;

/// How an equation is solved and differentiated.
struct OdeOptions {
  OdeMethod method = Tsit5{};
  /// A step is accepted where the root of the mean square of error / (abs_tol + rel_tol |y|) over a
  /// sample's numbers is at most 1. At least 4 roundings of the type of y.
  double rel_tol = 1e-6;
  double abs_tol = 1e-8;
  at::Tensor abs_tols = {};  ///< by number of a sample (its shape), in place of abs_tol
  OdeGradient gradient = Checkpointed{};
  OdeEvent event = {};
  int64_t max_steps = 10000;  ///< attempts of a sample
  /// A step sees f at its stages alone: what is narrower than a step may be passed over, and is not
  /// where this is its width. Of methods that choose their steps.
  double max_step = std::numeric_limits<double>::infinity();

  static void fields(auto& self, auto&& field) {
    field("method", self.method, "Runge-Kutta or Rosenbrock method");
    field("rel_tol", self.rel_tol, "error of a step relative to y", between(0, 1));
    field("abs_tol", self.abs_tol, "error of a step besides", at_least(0));
    field("gradient", self.gradient, "how gradients cross the solution");
    field("event", self.event);
    field("max_steps", self.max_steps, "steps of a sample at most", at_least(1));
    field("max_step", self.max_step, "length of a step at most", above(0));
  }
};

/// A solution, and by sample how it went.
struct Trajectory {
  /// (T, B, ...). Where a sample ended before a time, at an event or without a solution, it is the
  /// state at that end; without a solution its gradient is 0.
  at::Tensor y;
  /// reason: Converged to the end or the event; MaxSteps; StepUnderflow (a pole, a jump that cannot
  /// be passed); NonFinite (f, or y0); with an event EventMissed (none before the end; y is right
  /// to there, gradients too) and NotUnique (g only touches zero, or 1 / (dg/dt) is beyond all
  /// numbers: its time has the gradient 0).
  /// residual: the largest error of an accepted step, times rel_tol; 0 of a method without an
  /// estimate. steps: accepted ones.
  Report report;
  at::Tensor reached;     ///< (B) double: the time up to which there is a solution
  at::Tensor event_time;  ///< (B) of the type of y, with gradients; the end where there is none
  at::Tensor rejected;    ///< (B) int64, steps
  int64_t jacobians = 0;  ///< of batches
  int64_t factorisations = 0;  ///< of samples, together

  operator at::Tensor() const { return y; }  // NOLINT: it is its states
};

/// y(t_i) of y' = f(t, y), y(t_0) = y0 (B, ...), float or double; gradients to y0, to all times and
/// to whatever f and g captured (t_0 moves with y(t_0) = y0 fixed). Each sample has steps, errors
/// and an end of its own, and leaves f's batch when it is done: its results are those that it has
/// alone, to the bit where f's rows are. Nothing throws for a solution that is none: ask `report`.
/// Throws deq::Error for times that are not sorted, options out of range and an f of another shape.
Trajectory integrate(const OdeFunction& f, const at::Tensor& y0, const OdeTimes& times,
                     const OdeOptions& options = {});

}  // namespace deq
