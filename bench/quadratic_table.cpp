// What quadratic programs cost: random ones, OptNet's Sudoku step, total variation.
//   quadratic_table
// In double, one thread, to a residual of 1e-9. Prints the least processor time of several runs.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>

#include "bench/milliseconds.h"
#include "deq/layers/quadratic_program.h"

namespace {

using at::Tensor;

const at::TensorOptions kReal(at::kDouble);

void print(const std::string& name, deq::QuadraticProgram program, int runs) {
  deq::MinimiseOptions how{.stop = {.max_steps = 60, .rel_tol = 1e-9}};
  const deq::Optimum found = deq::minimise(program, how);
  const double cold = milliseconds(runs, [&] { deq::minimise(program, how); });
  deq::MinimiseOptions with_rows = how;
  with_rows.warm = &found.active;
  const double warm = milliseconds(runs, [&] { deq::minimise(program, with_rows); });
  std::vector<Tensor> inputs;
  for (Tensor* input : {&program.Q, &program.q, &program.A, &program.b, &program.G, &program.h}) {
    if (input->defined()) inputs.push_back(input->requires_grad_());
  }
  const double kept = milliseconds(runs, [&] { deq::minimise(program, how); });
  std::vector<Tensor> losses;  // a graph each: what the first backward pass makes is not kept
  for (int run = 0; run < runs; ++run) losses.push_back(deq::minimise(program, how).z.sum());
  const double back = milliseconds(runs, [&] {
    torch::autograd::grad({losses.back()}, inputs);
    losses.pop_back();
  });
  fmt::print(
      "{}: cold {:.2f} ms, factors kept {:.2f}, warm {:.2f}, backward {:.2f}; {:.1f} steps, {:.1f} "
      "factorisations; converged {:.1f}%\n",
      name, cold, kept, warm, back, found.report.steps.to(at::kDouble).mean().item<double>(),
      found.factorisations.to(at::kDouble).mean().item<double>(),
      100 * found.report.converged_share());
}

/// n variables, as many inequalities, feasible.
deq::QuadraticProgram random_programs(int64_t batch, int64_t n) {
  const Tensor L = at::rand({batch, n, n}, kReal), G = at::randn({batch, n, n}, kReal);
  const Tensor z = at::randn({batch, n}, kReal), slack = at::rand({batch, n}, kReal);
  return {.Q = at::matmul(L, L.transpose(1, 2)) + 1e-3 * at::eye(n, kReal),
          .q = at::randn({batch, n}, kReal),
          .G = G,
          .h = at::matmul(G, z.unsqueeze(2)).squeeze(2) + slack};
}

/// As OptNet's layer for 4x4 Sudoku: 40 learned equalities, z >= 0.
deq::QuadraticProgram sudoku_step(int64_t batch) {
  constexpr int64_t n = 64;
  const Tensor A = at::rand({40, n}, kReal);
  return {.Q = 0.1 * at::eye(n, kReal),
          .q = -at::rand({batch, n}, kReal).lt(0.1).to(at::kDouble),
          .A = A,
          .b = at::mv(A, at::exp(at::rand({n}, kReal))),
          .G = -at::eye(n, kReal),
          .h = at::zeros({n}, kReal)};
}

/// min |x - y|^2 / 2 + 13 sum t, |x_i - x_{i+1}| <= t_i, for steps of 25 with noise.
deq::QuadraticProgram total_variation(int64_t batch, double ridge) {
  constexpr int64_t L = 100, m = L - 1;
  const Tensor D = at::eye(L, kReal).narrow(0, 0, m) - at::eye(L, kReal).narrow(0, 1, m);
  const Tensor t = -at::eye(m, kReal);
  Tensor y = 10 * at::randn({batch, L}, kReal);
  for (int64_t k = 0; k < 4; ++k)
    y.narrow(1, 25 * k, 25).add_(10 + 90 * at::rand({batch, 1}, kReal));
  return {.Q = at::diag(at::cat({at::ones({L}, kReal), at::full({m}, ridge, kReal)})),
          .q = at::cat({-y, at::full({batch, m}, 13.0, kReal)}, 1),
          .G = at::cat({at::cat({D, t}, 1), at::cat({-D, t}, 1)}),
          .h = at::zeros({2 * m}, kReal)};
}

}  // namespace

int main() {
  at::set_num_threads(1);
  at::manual_seed(0);
  print("128 programs, n = m = 10", random_programs(128, 10), 30);
  print("128 programs, n = m = 50", random_programs(128, 50), 8);
  print("128 programs, n = m = 100", random_programs(128, 100), 4);
  print("OptNet's Sudoku step, B = 150", sudoku_step(150), 4);
  print("total variation, B = 150, ridge 1e-4", total_variation(150, 1e-4), 2);
  print("total variation, B = 150, no ridge", total_variation(150, 0), 2);
  return 0;
}
