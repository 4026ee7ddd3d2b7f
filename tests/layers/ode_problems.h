// Equations whose solutions are known.
#pragma once

#include <ATen/ATen.h>

#include "deq/layers/ode.h"

namespace deq::testing {

/// Every method; the stiff ones last.
inline std::vector<OdeMethod> ode_methods() {
  return {Tsit5{}, Dopri5{}, Dopri8{}, Bosh3{}, RungeKutta4{.steps = 64}, Rodas5P{}, Kvaerno5{}};
}
inline std::string name_of(const OdeMethod& method) {
  return std::visit([](const auto& held) { return std::string(held.name); }, method);
}

/// y' = -(y - cos t) - sin t, y(t) = cos t + (y0 - 1) e^-t from t = 0.
inline at::Tensor relaxation(const at::Tensor& t, const at::Tensor& y) {
  return -(y - at::cos(t).unsqueeze(1)) - at::sin(t).unsqueeze(1);
}
inline at::Tensor relaxation_at(double t, const at::Tensor& y0) {
  return std::cos(t) + (y0 - 1) * std::exp(-t);
}

/// Van der Pol's oscillator with a mu for each sample.
inline OdeFunction van_der_pol(const at::Tensor& mu) {
  return [mu](const at::Tensor&, const at::Tensor& y, const at::Tensor& rows) {
    const at::Tensor a = y.select(1, 0), b = y.select(1, 1);
    return at::stack({b, mu.index_select(0, rows) * (1 - a * a) * b - a}, 1);
  };
}

/// A pendulum whose rows are computed by themselves: lengths (B), and a shared damping.
inline OdeFunction pendulum(const at::Tensor& length, const at::Tensor& damping) {
  return [length, damping](const at::Tensor& t, const at::Tensor& y, const at::Tensor& rows) {
    const at::Tensor a = y.select(1, 0), v = y.select(1, 1);
    return at::stack(
        {v, -at::sin(a) / length.index_select(0, rows) - damping * v + 0.1 * at::cos(t)}, 1);
  };
}

}  // namespace deq::testing
