// The methods for ordinary differential equations.
#pragma once

#include <variant>

#include "deq/base/fields.h"

namespace deq {

/// Tsitouras' explicit pair of order 5(4), the default; ode_tableaus.h says where each is from.
struct Tsit5 {
  static constexpr const char* name = "tsit5";
  static void fields(auto&, auto&&) {}
};
/// Dormand and Prince's explicit pair of order 5(4).
struct Dopri5 {
  static constexpr const char* name = "dopri5";
  static void fields(auto&, auto&&) {}
};
/// DOP853, explicit, of order 8: for tight tolerances.
struct Dopri8 {
  static constexpr const char* name = "dopri8";
  static void fields(auto&, auto&&) {}
};
/// Bogacki and Shampine's explicit pair of order 3(2): for loose tolerances.
struct Bosh3 {
  static constexpr const char* name = "bosh3";
  static void fields(auto&, auto&&) {}
};
/// The classical method: `steps` equal steps from each time to the next.
struct RungeKutta4 {
  static constexpr const char* name = "runge_kutta4";
  int64_t steps = 16;
  static void fields(auto& self, auto&& field) {
    field("steps", self.steps, "equal steps from each time to the next", at_least(1));
  }
};
/// For stiff equations: one factorisation a step. Order 5, Rosenbrock (Steinebach, BIT 2023).
struct Rodas5P {
  static constexpr const char* name = "rodas5p";
  static void fields(auto&, auto&&) {}
};
/// For stiff equations: order 5, diagonally implicit, solved by Newton's method (Kvaerno, BIT
/// 2004).
struct Kvaerno5 {
  static constexpr const char* name = "kvaerno5";
  static void fields(auto&, auto&&) {}
};

/// Tsit5 unless told otherwise.
using OdeMethod = std::variant<Tsit5, Dopri5, Dopri8, Bosh3, RungeKutta4, Rodas5P, Kvaerno5>;

}  // namespace deq
