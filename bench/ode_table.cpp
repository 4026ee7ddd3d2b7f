// What ordinary differential equations cost: a small network, Van der Pol's oscillator in a batch
// of one or two stiffnesses, stiff equations.
//   ode_table
// One thread. Prints the least processor time of several runs, and errors against a solution at a
// tolerance of 1e-11, relative to its largest entry.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>

#include "bench/milliseconds.h"
#include "deq/layers/ode.h"

namespace {

using at::Tensor;

deq::OdeFunction van_der_pol(const Tensor& mu) {
  return deq::OdeFunction([mu](const Tensor&, const Tensor& y, const Tensor& rows) {
    const std::vector<Tensor> v = y.unbind(1);
    const Tensor own = rows.size(0) == mu.size(0) ? mu : mu.index_select(0, rows);
    return at::stack({v[1], at::sub(own * (1 - v[0] * v[0]) * v[1], v[0])}, 1);
  });
}

Tensor robertson(const Tensor&, const Tensor& y) {
  const std::vector<Tensor> v = y.unbind(1);
  const Tensor slow = 0.04 * v[0] - 1e4 * v[1] * v[2], fast = 3e7 * v[1] * v[1];
  return at::stack({-slow, slow - fast, fast}, 1);
}

/// 4 -> 32 -> 4 with LibTorch's initial weights.
void network() {
  const auto uniform = [](at::IntArrayRef sizes, double most) {
    return ((at::rand(sizes) * 2 - 1) * most).requires_grad_();
  };
  const Tensor W1 = uniform({32, 4}, 0.5), b1 = uniform({32}, 0.5);
  const Tensor W2 = uniform({4, 32}, 0.1768), b2 = uniform({4}, 0.1768);
  const Tensor y0 = at::randn({256, 4}), times = at::tensor({0.0, 1.0}, at::kFloat);
  const deq::OdeFunction f([&](const Tensor&, const Tensor& y) {
    return at::addmm(b2, at::tanh(at::addmm(b1, y, W1.t())), W2.t());
  });
  const deq::OdeOptions how{.rel_tol = 1e-6, .abs_tol = 1e-6};
  int64_t evaluations = 0;
  const double forward = milliseconds(30, [&] {
    c10::AutoGradMode no_tape(false);
    evaluations = deq::integrate(f, y0, times, how).report.evaluations;
  });
  const double both = milliseconds(20, [&] {
    const Tensor y = deq::integrate(f, y0, times, how).y[1];
    torch::autograd::grad({y.square().sum()}, {W1, b1, W2, b2});
  });
  fmt::print("network, B = 256: forward {:.1f} ms ({} evaluations), with its gradient {:.1f}\n",
             forward, evaluations, both);
}

void oscillators(const char* name, const Tensor& mu, const Tensor& y0,
                 const deq::OdeMethod& method) {
  c10::AutoGradMode no_tape(false);
  const deq::OdeOptions how{.method = method, .rel_tol = 1e-5, .abs_tol = 1e-5};
  const Tensor times = at::linspace(0, 10, 200, at::kDouble);
  deq::Trajectory found;
  const double spent =
      milliseconds(3, [&] { found = deq::integrate(van_der_pol(mu), y0, times, how); });
  fmt::print("{}: {:.0f} ms ({} evaluations), converged {:.0f}%\n", name, spent,
             found.report.evaluations, 100 * found.report.converged_share());
}

/// A number's absolute tolerance is `tol` times its `scale`.
void stiff(const char* name, const deq::OdeFunction& f, const Tensor& y0, double end, double tol,
           const Tensor& scale) {
  c10::AutoGradMode no_tape(false);
  const auto solved = [&](double tolerance) {
    deq::OdeOptions how{.method = deq::Rodas5P{}, .rel_tol = tolerance, .max_steps = 1000000};
    how.abs_tols = tolerance * scale;
    return deq::integrate(f, y0, {0, end}, how);
  };
  const Tensor exact = solved(1e-11).y[1];
  const deq::Trajectory found = solved(tol);
  fmt::print(
      "{}, tolerance {:.0e}: error {:.1e}, {} evaluations (Jacobians with them), {} "
      "factorisations\n",
      name, tol, ((found.y[1] - exact).abs().max() / exact.abs().max()).item<double>(),
      found.report.evaluations, found.factorisations);
}

}  // namespace

int main() {
  at::set_num_threads(1);
  at::manual_seed(0);
  network();
  const Tensor mild = at::ones({256}, at::kDouble), mixed = mild.clone();
  mixed[7] = 50;
  const Tensor y0 = at::randn({256, 2}, at::kDouble) + at::tensor({2.0, 0.0}, at::kDouble);
  oscillators("256 x mu = 1", mild, y0, deq::Tsit5{});
  oscillators("255 x mu = 1 and one mu = 50", mixed, y0, deq::Tsit5{});
  oscillators("that mu = 50 alone", mixed.narrow(0, 7, 1), y0.narrow(0, 7, 1), deq::Tsit5{});
  oscillators("the mixed batch, Rodas5P", mixed, y0, deq::Rodas5P{});
  const Tensor ones = at::ones({2}, at::kDouble),
               at_rest = at::tensor({2.0, 0.0}, at::kDouble).view({1, 2});
  const auto with = [](double mu) { return van_der_pol(at::full({1}, mu, at::kDouble)); };
  stiff("mu = 100 to 200", with(100), at_rest, 200, 3e-6, ones);
  stiff("mu = 1000 to 1500", with(1000), at_rest, 1500, 1e-6, ones);
  stiff("Robertson to 40", deq::OdeFunction(robertson),
        at::tensor({1.0, 0.0, 0.0}, at::kDouble).view({1, 3}), 40, 1e-5,
        at::tensor({1e-2, 1e-7, 1e-2}, at::kDouble));
  return 0;
}
