// Ordinary differential equations: a small network, Van der Pol's oscillator in a batch of one or
// two stiffnesses, stiff equations.
#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>

#include "deq/layers/ode.h"
#include "deq/measure/layer_workloads.h"

namespace deq {
namespace {

using at::Tensor;

OdeFunction van_der_pol(const Tensor& mu) {
  return OdeFunction([mu](const Tensor&, const Tensor& y, const Tensor& rows) {
    const std::vector<Tensor> v = y.unbind(1);
    const Tensor own = mu.index_select(0, rows);
    return at::stack({v[1], at::sub(own * (1 - v[0] * v[0]) * v[1], v[0])}, 1);
  });
}

Tensor robertson(const Tensor&, const Tensor& y) {
  const std::vector<Tensor> v = y.unbind(1);
  const Tensor slow = 0.04 * v[0] - 1e4 * v[1] * v[2], fast = 3e7 * v[1] * v[1];
  return at::stack({-slow, slow - fast, fast}, 1);
}

LayerCost counted(std::string part, double milliseconds, const Trajectory& found) {
  LayerCost cost = cost_of(std::move(part), milliseconds, found.report);
  cost.error = LayerCost::kNone;
  cost.evaluations = double(found.report.evaluations);
  return cost;
}

/// 4 -> 32 -> 4 with LibTorch's initial weights, t = 0 ... 1, to 1e-6 in float.
std::vector<LayerCost> network(int64_t B, int64_t repeats) {
  const auto uniform = [](at::IntArrayRef sizes, double most) {
    return ((at::rand(sizes) * 2 - 1) * most).requires_grad_();
  };
  const Tensor W1 = uniform({32, 4}, 0.5), b1 = uniform({32}, 0.5);
  const Tensor W2 = uniform({4, 32}, 0.1768), b2 = uniform({4}, 0.1768);
  const Tensor y0 = at::randn({B, 4}), times = at::tensor({0.0, 1.0}, at::kFloat);
  const OdeFunction f([&](const Tensor&, const Tensor& y) {
    return at::addmm(b2, at::tanh(at::addmm(b1, y, W1.t())), W2.t());
  });
  const OdeOptions how{.rel_tol = 1e-6, .abs_tol = 1e-6};
  Trajectory found;
  const double forward = least_milliseconds(repeats, [&] {
    c10::AutoGradMode no_tape(false);
    found = integrate(f, y0, times, how);
  });
  std::vector<LayerCost> costs{counted("forward", forward, found)};
  const double both = least_milliseconds(repeats, [&] {
    found = integrate(f, y0, times, how);
    torch::autograd::grad({found.y[1].square().sum()}, {W1, b1, W2, b2});
  });
  costs.push_back(counted("forward and gradient", both, found));
  return costs;
}

/// At 200 times of t = 0 ... 10, to 1e-5.
LayerCost oscillators(std::string part, const Tensor& mu, const Tensor& y0, const OdeMethod& method,
                      int64_t repeats) {
  c10::AutoGradMode no_tape(false);
  const OdeOptions how{.method = method, .rel_tol = 1e-5, .abs_tol = 1e-5};
  const Tensor times = at::linspace(0, 10, 200, at::kDouble);
  Trajectory found;
  const double spent =
      least_milliseconds(repeats, [&] { found = integrate(van_der_pol(mu), y0, times, how); });
  return counted(std::move(part), spent, found);
}

/// Of B samples one is stiff, the last.
std::vector<LayerCost> mixed(int64_t B, int64_t repeats) {
  const Tensor mild = at::ones({B}, at::kDouble), one = mild.clone();
  one[B - 1] = 50;
  const Tensor y0 = at::randn({B, 2}, at::kDouble) + at::tensor({2.0, 0.0}, at::kDouble);
  return {oscillators("all mu = 1", mild, y0, Tsit5{}, repeats),
          oscillators("one mu = 50", one, y0, Tsit5{}, repeats),
          oscillators("mu = 50 alone", one.narrow(0, B - 1, 1), y0.narrow(0, B - 1, 1), Tsit5{},
                      repeats),
          oscillators("one mu = 50, rodas5p", one, y0, Rodas5P{}, repeats)};
}

/// The error is that at the end, against a solution at 1e-11, relative to the largest entry. A
/// number's absolute tolerance is `tol` times its `scale`.
LayerCost stiff(std::string part, const OdeFunction& f, const Tensor& y0, double end, double tol,
                const Tensor& scale, int64_t repeats) {
  c10::AutoGradMode no_tape(false);
  const auto solved = [&](double tolerance) {
    OdeOptions how{.method = Rodas5P{}, .rel_tol = tolerance, .max_steps = 1000000};
    how.abs_tols = tolerance * scale;
    return integrate(f, y0, {0, end}, how);
  };
  const Tensor exact = solved(1e-11).y[1];
  Trajectory found;
  const double spent = least_milliseconds(repeats, [&] { found = solved(tol); });
  LayerCost cost = counted(std::move(part), spent, found);
  cost.error = ((found.y[1] - exact).abs().max() / exact.abs().max()).item<double>();
  cost.factorisations = double(found.factorisations);
  cost.note = fmt::format("tolerance {:.0e}, Jacobians among the evaluations", tol);
  return cost;
}

std::vector<LayerCost> stiff_equations(int64_t repeats) {
  const Tensor ones = at::ones({2}, at::kDouble),
               at_rest = at::tensor({2.0, 0.0}, at::kDouble).view({1, 2});
  const auto with = [](double mu) { return van_der_pol(at::full({1}, mu, at::kDouble)); };
  return {stiff("mu = 100 to 200", with(100), at_rest, 200, 3e-6, ones, repeats),
          stiff("mu = 1000 to 1500", with(1000), at_rest, 1500, 1e-6, ones, repeats),
          stiff("Robertson to 40", OdeFunction(robertson),
                at::tensor({1.0, 0.0, 0.0}, at::kDouble).view({1, 3}), 40, 1e-5,
                at::tensor({1e-2, 1e-7, 1e-2}, at::kDouble), repeats)};
}

}  // namespace

std::vector<LayerWorkload> ode_workloads() {
  return {
      {"ode-network",
       [](const LayersOptions& options) {
         return network(samples_of(options, 256), options.repeats);
       }},
      {"ode-mixed",
       [](const LayersOptions& options) {
         return mixed(samples_of(options, 256), options.repeats);
       }},
      {"ode-stiff", [](const LayersOptions& options) { return stiff_equations(options.repeats); }}};
}

}  // namespace deq
