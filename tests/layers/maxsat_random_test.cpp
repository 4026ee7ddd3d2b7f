// Many small problems, among them degenerate ones: none passes for solved that is not.
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <random>

#include "deq/layers/maxsat.h"
#include "tests/layers/fuzz.h"

namespace deq::testing {
namespace {

using at::Tensor;

class Draw {
 public:
  explicit Draw(uint64_t seed) : random_(seed) {}
  int64_t below(int64_t n) { return int64_t(random_() % uint64_t(n)); }
  double uniform() { return double(random_() >> 11) * 0x1p-53; }

 private:
  std::mt19937_64 random_;
};

/// Entries of any size, of -1, 0, 1 only, or rows that repeat and vanish.
Tensor clauses(Draw& draw, int64_t rows, int64_t m) {
  const Tensor S = at::zeros({rows, m}, at::kDouble);
  const int64_t kind = draw.below(3);
  for (int64_t i = 0; i < S.numel(); ++i)
    S.data_ptr<double>()[i] = kind == 0 ? draw.uniform() - 0.5 : double(draw.below(3) - 1);
  if (kind == 2) {
    S[draw.below(rows)] = S[draw.below(rows)].clone();
    S[draw.below(rows)].zero_();
  }
  return S;
}

/// The residual as it is declared, of the vectors that are `free`, by plain tensors.
double stationarity(const Tensor& S, const Tensor& vectors, const Tensor& free) {
  const Tensor C = at::matmul(S, S.t());
  const Tensor off = C - at::diag(at::diag(C));
  const Tensor truth = at::zeros({1, vectors.size(1)}, at::kDouble);
  truth[0][0] = 1.0;
  const Tensor V = at::cat({truth, vectors});
  const Tensor G = at::matmul(off, V).narrow(0, 1, vectors.size(0));
  const Tensor rows = at::nonzero(free).squeeze(1);
  const Tensor g = G.index_select(0, rows), v = vectors.index_select(0, rows);
  if (rows.numel() == 0) return 0;
  return std::sqrt((v + g / g.norm(2, 1, true)).square().sum(1).mean().item<double>());
}

void check(Draw& draw, int64_t* converged) {
  const int64_t n = 1 + draw.below(6), auxiliary = draw.below(4), m = draw.below(8), B = 4;
  const Tensor S = clauses(draw, 1 + n + auxiliary, m).requires_grad_();
  Tensor z = at::empty({B, n}, at::kDouble), known = at::empty({B, n}, at::kBool);
  for (int64_t i = 0; i < z.numel(); ++i) {
    z.data_ptr<double>()[i] = draw.below(3) ? double(draw.below(2)) : draw.uniform();
    known.data_ptr<bool>()[i] = draw.below(2) == 0;
  }
  z.requires_grad_();
  const Maxsat layer(S, {.variables = n, .auxiliary = auxiliary, .seed = uint64_t(draw.below(9))});
  const MaxsatSolve how{.stop = {.max_steps = 300, .rel_tol = 1e-7}};
  const Assignment a = layer.assign(S, z, known, how);
  ASSERT_TRUE(a.z.isfinite().all().item<bool>() && a.vectors.isfinite().all().item<bool>());
  ASSERT_TRUE(a.z.ge(0).logical_and(a.z.le(1)).all().item<bool>());
  for (const Tensor& gradient :
       torch::autograd::grad({a.z.square().sum()}, {S, z}, {}, {}, false, /*unused=*/true))
    if (gradient.defined()) {
      ASSERT_TRUE(gradient.isfinite().all().item<bool>());
    }
  for (int64_t b = 0; b < B; ++b) {
    if (a.report.reason[b].item<uint8_t>() != uint8_t(Reason::Converged)) continue;
    ++*converged;
    const Tensor free = at::ones({n + auxiliary}, at::kDouble);
    free.narrow(0, 0, n).sub_(known[b].to(at::kDouble));
    ASSERT_LE(stationarity(S.detach(), a.vectors[b], free), 2e-7) << S << a.vectors[b] << free;
  }
}

TEST(MaxsatRandom, NothingPassesForSolvedThatIsNot) {
  Draw draw(fuzz_seed(1));
  int64_t converged = 0;
  for (int64_t k = 0; k < 3000 * fuzz_times(); ++k)
    ASSERT_NO_FATAL_FAILURE(check(draw, &converged)) << "problem " << k;
  EXPECT_GT(converged, 3000);
}

/// Few clauses, of which |V^T S| = 0 is the least in many ways: there is no y, and the adjoint says
/// so and returns its best, not what it came to.
TEST(MaxsatRandom, ManyAnswers) {
  Draw draw(5);
  const int64_t n = 40;
  const Tensor S = at::zeros({1 + n, 20}, at::kDouble);
  for (int64_t i = 0; i < S.numel(); ++i) S.data_ptr<double>()[i] = draw.uniform() - 0.5;
  S.requires_grad_();
  const Maxsat layer(S, {.variables = n});
  const MaxsatSolve how{.stop = {.max_steps = 2000, .rel_tol = 1e-12},
                        .adjoint = {.max_steps = 400, .rel_tol = 1e-10}};
  const Assignment a = layer.assign(S, at::zeros({1, n}, at::kDouble), at::arange(n).lt(5), how);
  EXPECT_TRUE(a.report.converged()) << describe(a.report);
  EXPECT_LT(a.objective.item<double>(), 1e-6);
  const Tensor gradient = torch::autograd::grad({a.z.sum()}, {S})[0];
  EXPECT_FALSE(a.adjoint().converged());
  EXPECT_LE(a.adjoint().worst_residual(), 1);
  EXPECT_LT(gradient.abs().max().item<double>(), 100) << describe(a.adjoint());
}

TEST(MaxsatRandom, ABatchOfNone) {
  const Maxsat layer(MaxsatOptions{.variables = 3, .auxiliary = 1, .clauses = 2});
  const Assignment a = layer(at::zeros({0, 3}), at::ones({3}, at::kByte));
  EXPECT_TRUE(a.report.converged());
  EXPECT_EQ(a.vectors.size(0), 0);
  const Tensor gradient = torch::autograd::grad({a.z.sum()}, {layer.S()})[0];
  EXPECT_EQ(gradient.abs().sum().item<double>(), 0);
}

}  // namespace
}  // namespace deq::testing
