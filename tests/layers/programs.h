// Quadratic programs drawn from a seed, and how well an answer meets their conditions.
#pragma once

#include <ATen/ATen.h>

#include "deq/layers/quadratic_program.h"

namespace deq::testing {

inline const MinimiseOptions kTight{.stop = {.max_steps = 60, .rel_tol = 1e-10}};

inline at::Tensor random(std::vector<int64_t> sizes, uint64_t seed) {
  return at::randn(sizes, at::make_generator<at::CPUGeneratorImpl>(seed), at::kDouble);
}

/// B programs in which some rows are active, by sample or with shared matrices.
inline QuadraticProgram drawn(int64_t B, int64_t n, int64_t p, int64_t m, uint64_t seed = 1) {
  const at::Tensor half = random({B, n, n}, seed), z = random({B, n}, seed + 1);
  QuadraticProgram program;
  program.Q = half.matmul(half.transpose(1, 2)) / n + 0.1 * at::eye(n, at::kDouble);
  program.q = random({B, n}, seed + 2);
  program.A = random({B, p, n}, seed + 3);
  program.b = program.A.matmul(z.unsqueeze(2)).squeeze(2);
  program.G = random({B, m, n}, seed + 4);
  program.h = program.G.matmul(z.unsqueeze(2)).squeeze(2) + random({B, m}, seed + 5).abs();
  return program;
}

/// |Qz + q + A'nu + G'lam| and |Az - b|, of dense programs by sample.
inline double conditions(const QuadraticProgram& p, const Optimum& o) {
  const auto times = [](const at::Tensor& M, const at::Tensor& x) {
    return M.matmul(x.unsqueeze(-1)).squeeze(-1);
  };
  const at::Tensor stationary = times(p.Q, o.z) + p.q + times(p.A.transpose(-1, -2), o.nu) +
                                times(p.G.transpose(-1, -2), o.lam);
  double worst = stationary.abs().max().item<double>();
  if (p.A.numel() > 0) worst = std::max(worst, (times(p.A, o.z) - p.b).abs().max().item<double>());
  const at::Tensor slack = p.h - times(p.G, o.z);
  worst = std::max(worst, (slack * o.lam).abs().max().item<double>());
  return std::max({worst, -slack.min().item<double>(), -o.lam.min().item<double>()});
}

}  // namespace deq::testing
