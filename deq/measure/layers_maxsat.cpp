// MAXSAT's relaxation with random clauses: a sweep and a training sample at the size of 9x9 Sudoku,
// the cell of the parity experiment.
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>

#include <numeric>

#include "deq/layers/maxsat.h"
#include "deq/measure/layer_workloads.h"
#include "deq/ops/mixing_kernel.h"

namespace deq {
namespace {

using at::Tensor;

LayerCost timed(std::string part, double milliseconds) {
  LayerCost cost;
  cost.part = std::move(part);
  cost.samples = 1;
  cost.milliseconds = milliseconds;
  return cost;
}

/// 705 free vectors of rank 48: in blocks, and one by one in plain loops.
template <class T>
void sweeps(const std::string& type, int64_t repeats, std::vector<LayerCost>& costs) {
  constexpr int64_t n = 705, rank = 48, m = 600;
  const Tensor S = at::randn({n, m}, at::kDouble) / 50;
  const Tensor C = at::matmul(S, S.t()).to(sizeof(T) == 4 ? at::kFloat : at::kDouble);
  const int64_t width = ops::mixing_width<T>(rank);
  std::vector<int64_t> all(size_t(n), 0);
  std::iota(all.begin(), all.end(), 0);
  const auto zeros = [](int64_t count) { return std::vector<T>(size_t(count), T(0)); };
  std::vector<T> packed = zeros(ops::packed_couplings(n)), base = zeros(n * width), V = base,
                 moved = base, floor = zeros(n), block = zeros(ops::kMixingBlock * width);
  ops::pack_couplings(C.data_ptr<T>(), n, all, T(1), packed.data());
  for (int64_t i = 0; i < n; ++i) V[size_t(i * width + i % rank)] = base[size_t(i * width)] = T(1);
  const ops::Mixing<T> problem{n, width, packed.data(), base.data(), floor.data()};
  costs.push_back(timed(type, least_milliseconds(repeats, [&] {
                          ops::mixing_sweep(problem, V.data(), moved.data(), block.data());
                        })));
  costs.push_back(timed(type + ", one by one", least_milliseconds(repeats, [&] {
                          ops::mixing_sweep_reference(problem, V.data(), moved.data());
                        })));
}

/// 36 of 81 cells are known; float.
std::vector<LayerCost> training_samples(int64_t B, double rel_tol, int64_t repeats) {
  const Maxsat sat(MaxsatOptions{.variables = 729, .auxiliary = 300, .clauses = 600});
  Tensor z = at::zeros({B, 81, 9}), known = at::zeros({B, 81, 9}, at::kBool);
  for (int64_t b = 0; b < B; ++b) {
    for (int64_t cell = 0; cell < 81; ++cell) {
      z[b][cell][(5 * cell + b) % 9] = 1;
      if ((7 * cell + 3 * b) % 81 < 36) known[b][cell].fill_(true);
    }
  }
  z = z.flatten(1);
  known = known.flatten(1);
  MaxsatSolve how;
  how.stop.rel_tol = rel_tol;
  Assignment a;
  std::vector<LayerCost> costs;
  const auto forward = [&] { a = sat(z, known, how); };
  const double cold = least_milliseconds(repeats, forward);
  costs.push_back(cost_of("forward", cold, a.report));
  const double back = least_milliseconds(repeats, [&] {
    const Tensor loss = at::binary_cross_entropy(a.z.clamp(1e-6, 1 - 1e-6), z);
    torch::autograd::grad({loss}, {sat.S()}, {}, /*retain_graph=*/true);
  });
  costs.push_back(cost_of("backward", back, a.adjoint()));
  how.warm = a.vectors;
  const double warm = least_milliseconds(repeats, forward);
  costs.push_back(cost_of("forward, from its own vectors", warm, a.report));
  return costs;
}

std::vector<LayerCost> parity_cell(int64_t B, int64_t repeats) {
  const Maxsat cell(MaxsatOptions{.variables = 3, .auxiliary = 4, .clauses = 4});
  const Tensor z = at::rand({B, 3}).round(), known = at::tensor({1, 1, 0}, at::kByte);
  Assignment a;
  std::vector<LayerCost> costs;
  const double forward = least_milliseconds(repeats, [&] { a = cell(z, known); });
  costs.push_back(cost_of("forward", forward, a.report));
  const double back = least_milliseconds(
      repeats, [&] { torch::autograd::grad({a.z.sum()}, {cell.S()}, {}, /*retain_graph=*/true); });
  costs.push_back(cost_of("backward", back, a.adjoint()));
  return costs;
}

}  // namespace

std::vector<LayerWorkload> maxsat_workloads() {
  const auto training = [](double rel_tol) {
    return [=](const LayersOptions& options) {
      return training_samples(samples_of(options, 8), rel_tol, options.repeats);
    };
  };
  return {{"maxsat-sweep",
           [](const LayersOptions& options) {
             std::vector<LayerCost> costs;
             sweeps<float>("float", options.repeats, costs);
             sweeps<double>("double", options.repeats, costs);
             return costs;
           }},
          {"maxsat-9x9-1e-3", training(1e-3)},
          {"maxsat-9x9-1e-4", training(1e-4)},
          {"maxsat-parity", [](const LayersOptions& options) {
             return parity_cell(samples_of(options, 100), options.repeats);
           }}};
}

}  // namespace deq
