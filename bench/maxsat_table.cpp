// What MAXSAT's relaxation costs: a sweep, a training sample at the size of 9x9 Sudoku, the cell of
// the parity experiment.
//   maxsat_table
// Random clauses, one thread. Prints the least processor time of several runs, in milliseconds.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>

#include <numeric>

#include "bench/milliseconds.h"
#include "deq/layers/maxsat.h"
#include "deq/ops/mixing_kernel.h"

namespace {

using at::Tensor;

template <class T>
void sweeps(const char* type, int64_t n, int64_t rank, int64_t m) {
  const Tensor S = at::randn({n, m}, at::kDouble) / 50;
  const Tensor C = at::matmul(S, S.t()).to(sizeof(T) == 4 ? at::kFloat : at::kDouble);
  const int64_t width = deq::ops::mixing_width<T>(rank);
  std::vector<int64_t> all(size_t(n), 0);
  std::iota(all.begin(), all.end(), 0);
  const auto zeros = [](int64_t count) { return std::vector<T>(size_t(count), T(0)); };
  std::vector<T> packed = zeros(deq::ops::packed_couplings(n)), base = zeros(n * width), V = base,
                 moved = base, floor = zeros(n), block = zeros(deq::ops::kMixingBlock * width);
  deq::ops::pack_couplings(C.data_ptr<T>(), n, all, T(1), packed.data());
  for (int64_t i = 0; i < n; ++i) V[size_t(i * width + i % rank)] = base[size_t(i * width)] = T(1);
  const deq::ops::Mixing<T> problem{n, width, packed.data(), base.data(), floor.data()};
  fmt::print(
      "sweep, {} free vectors of rank {}, {}: {:.3f} ms; one by one, plain: {:.1f} ms\n", n, rank,
      type,
      milliseconds(40,
                   [&] { deq::ops::mixing_sweep(problem, V.data(), moved.data(), block.data()); }),
      milliseconds(3, [&] { deq::ops::mixing_sweep_reference(problem, V.data(), moved.data()); }));
}

/// A batch's forward and backward pass for each sample: `given` cells of 81 are known.
void training_sample(int64_t B, int64_t given, double rel_tol) {
  const deq::Maxsat sat(deq::MaxsatOptions{.variables = 729, .auxiliary = 300, .clauses = 600});
  Tensor z = at::zeros({B, 81, 9}), known = at::zeros({B, 81, 9}, at::kBool);
  for (int64_t b = 0; b < B; ++b) {
    for (int64_t cell = 0; cell < 81; ++cell) {
      z[b][cell][(5 * cell + b) % 9] = 1;
      if ((7 * cell + 3 * b) % 81 < given) known[b][cell].fill_(true);
    }
  }
  z = z.flatten(1);
  known = known.flatten(1);
  deq::MaxsatSolve how;
  how.stop.rel_tol = rel_tol;
  deq::Assignment a;
  const auto forward = [&] { a = sat(z, known, how); };
  const double solving = milliseconds(3, forward) / double(B);
  const double differentiating =
      milliseconds(3,
                   [&] {
                     const Tensor loss = at::binary_cross_entropy(a.z.clamp(1e-6, 1 - 1e-6), z);
                     torch::autograd::grad({loss}, {sat.S()}, {}, /*retain_graph=*/true);
                   }) /
      double(B);
  fmt::print(
      "9x9 training sample, rel_tol {:.0e}: forward {:.1f} ms ({:.0f} sweeps), backward {:.1f} ms "
      "({:.0f} steps, residual {:.0e})\n",
      rel_tol, solving, a.report.steps.to(at::kDouble).mean().item<double>(), differentiating,
      a.adjoint().steps.to(at::kDouble).mean().item<double>(), a.adjoint().worst_residual());
  how.warm = a.vectors;
  const double again = milliseconds(3, forward) / double(B);
  fmt::print("  forward from its own vectors: {:.1f} ms\n", again);
}

void parity_cell(int64_t B) {
  const deq::Maxsat cell(deq::MaxsatOptions{.variables = 3, .auxiliary = 4, .clauses = 4});
  const Tensor z = at::rand({B, 3}).round(), known = at::tensor({1, 1, 0}, at::kByte);
  deq::Assignment a;
  const double solving = milliseconds(50, [&] { a = cell(z, known); });
  const double differentiating = milliseconds(
      50, [&] { torch::autograd::grad({a.z.sum()}, {cell.S()}, {}, /*retain_graph=*/true); });
  fmt::print("parity cell, batch {}: forward {:.3f} ms, backward {:.3f} ms\n", B, solving,
             differentiating);
}

}  // namespace

int main() {
  at::set_num_threads(1);
  at::manual_seed(1);
  sweeps<float>("float", 705, 48, 600);
  sweeps<double>("double", 705, 48, 600);
  for (const double rel_tol : {1e-3, 1e-4}) training_sample(8, 36, rel_tol);
  parity_cell(100);
}
