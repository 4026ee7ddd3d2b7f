// Quadratic programs: random ones, OptNet's step on 4x4 Sudoku, total variation; to a residual of
// 1e-9.
#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include "deq/layers/quadratic_program.h"
#include "deq/measure/layer_workloads.h"

namespace deq {
namespace {

using at::Tensor;

const at::TensorOptions kReal(at::kDouble);

LayerCost counted(std::string part, double milliseconds, const Optimum& found) {
  LayerCost cost = cost_of(std::move(part), milliseconds, found.report);
  cost.factorisations = found.factorisations.to(at::kDouble).mean().item<double>();
  return cost;
}

/// Cold; warm, with the right rows; cold with factors kept for a gradient; and backward to all of
/// `data`, which `solve` reads and of which some may be undefined.
std::vector<LayerCost> run(const std::function<Optimum(const MinimiseOptions&)>& solve,
                           const std::vector<Tensor>& data, int64_t repeats) {
  const MinimiseOptions how{.stop = {.max_steps = 60, .rel_tol = 1e-9}};
  Optimum found;
  const auto cold = [&] { found = solve(how); };
  std::vector<LayerCost> costs;
  const double once = least_milliseconds(repeats, cold);
  costs.push_back(counted("cold", once, found));
  const Tensor rows = found.active;
  MinimiseOptions with_rows = how;
  with_rows.warm = &rows;
  const double warm = least_milliseconds(repeats, [&] { found = solve(with_rows); });
  costs.push_back(counted("warm", warm, found));
  std::vector<Tensor> inputs;
  for (Tensor input : data)
    if (input.defined()) inputs.push_back(input.requires_grad_());
  const double kept = least_milliseconds(repeats, cold);
  costs.push_back(counted("cold, factors kept", kept, found));
  std::vector<Optimum> solved;  // a graph each: what the first backward pass makes is not kept
  for (int64_t i = 0; i < repeats; ++i) solved.push_back(solve(how));
  const double back = least_milliseconds(repeats, [&] {
    found = std::move(solved.back());
    solved.pop_back();
    torch::autograd::grad({found.z.sum()}, inputs);
  });
  costs.push_back(cost_of("backward", back, found.adjoint()));
  costs.back().steps = LayerCost::kNone;
  return costs;
}

std::vector<LayerCost> run(const QuadraticProgram& p, int64_t repeats) {
  return run([&](const MinimiseOptions& how) { return minimise(p, how); },
             {p.Q, p.q, p.A, p.b, p.G, p.h}, repeats);
}

std::vector<LayerCost> run(const SparseProgram& p, int64_t repeats) {
  return run([&](const MinimiseOptions& how) { return minimise(p, how); },
             {p.Q.values, p.q, p.A.values, p.b, p.G.values, p.h}, repeats);
}

/// n variables, as many inequalities, feasible.
QuadraticProgram random_programs(int64_t batch, int64_t n) {
  const Tensor L = at::rand({batch, n, n}, kReal), G = at::randn({batch, n, n}, kReal);
  const Tensor z = at::randn({batch, n}, kReal), slack = at::rand({batch, n}, kReal);
  return {.Q = at::matmul(L, L.transpose(1, 2)) + 1e-3 * at::eye(n, kReal),
          .q = at::randn({batch, n}, kReal),
          .G = G,
          .h = at::matmul(G, z.unsqueeze(2)).squeeze(2) + slack};
}

/// As OptNet's layer for 4x4 Sudoku: 40 learned equalities, z >= 0.
QuadraticProgram sudoku_step(int64_t batch) {
  constexpr int64_t n = 64;
  const Tensor A = at::rand({40, n}, kReal);
  return {.Q = 0.1 * at::eye(n, kReal),
          .q = -at::rand({batch, n}, kReal).lt(0.1).to(at::kDouble),
          .A = A,
          .b = at::mv(A, at::exp(at::rand({n}, kReal))),
          .G = -at::eye(n, kReal),
          .h = at::zeros({n}, kReal)};
}

/// min |x - y|^2 / 2 + 13 sum t, |x_i - x_{i+1}| <= t_i, for steps of 25 with noise: 199 variables,
/// 198 rows.
QuadraticProgram total_variation(int64_t batch) {
  constexpr int64_t L = 100, m = L - 1;
  const Tensor D = at::eye(L, kReal).narrow(0, 0, m) - at::eye(L, kReal).narrow(0, 1, m);
  const Tensor t = -at::eye(m, kReal);
  Tensor y = 10 * at::randn({batch, L}, kReal);
  for (int64_t k = 0; k < 4; ++k)
    y.narrow(1, 25 * k, 25).add_(10 + 90 * at::rand({batch, 1}, kReal));
  return {.Q = at::diag(at::cat({at::ones({L}, kReal), at::zeros({m}, kReal)})),
          .q = at::cat({-y, at::full({batch, m}, 13.0, kReal)}, 1),
          .G = at::cat({at::cat({D, t}, 1), at::cat({-D, t}, 1)}),
          .h = at::zeros({2 * m}, kReal)};
}

}  // namespace

std::vector<LayerWorkload> quadratic_workloads() {
  std::vector<LayerWorkload> all;
  for (const int64_t n : {10, 50, 100})
    all.push_back({"qp-" + std::to_string(n), [n](const LayersOptions& options) {
                     return run(random_programs(samples_of(options, 128), n), options.repeats);
                   }});
  all.push_back({"sudoku", [](const LayersOptions& options) {
                   return run(sudoku_step(samples_of(options, 150)), options.repeats);
                 }});
  all.push_back({"denoising", [](const LayersOptions& options) {
                   return run(total_variation(samples_of(options, 150)), options.repeats);
                 }});
  all.push_back(
      {"sparse-denoising", [](const LayersOptions& options) {
         const QuadraticProgram p = total_variation(samples_of(options, 150));
         return run(SparseProgram{.Q = compressed(p.Q), .q = p.q, .G = compressed(p.G), .h = p.h},
                    options.repeats);
       }});
  return all;
}

}  // namespace deq
