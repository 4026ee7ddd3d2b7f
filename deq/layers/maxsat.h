// MAXSAT's semidefinite relaxation as a layer (Wang, Donti, Wilder and Kolter 2019, SATNet), with
// exact gradients. Clauses are the columns of S (1 + N, m), N = n variables and auxiliary ones; row
// 0 stands for truth. Each variable is a unit vector in R^k, truth is e_0, and a known variable is
//   v_i = -cos(pi z_i) e_0 + sin(pi z_i) u_i,   u_i a unit vector with u_i . e_0 = 0.
// The free ones minimise |V^T S|^2, and say z_i = 1 - arccos(v_i . e_0) / pi: 1 is true.
// docs/layers/maxsat.md has what is returned where no gradient exists.
#pragma once

#include <torch/nn/module.h>

#include <memory>
#include <string>

#include "deq/gradients/differentiate.h"

namespace deq {

/// A layer's sizes. Vectors have `rank` numbers; 0: the next multiple of 8 from sqrt(2 (N + 1)) + 1
/// on, with which no minimum is only a local one (Boumal, Voroninski and Bandeira 2016).
struct MaxsatOptions {
  int64_t variables = 0, auxiliary = 0, clauses = 0, rank = 0;
  uint64_t seed = 0;  ///< S, the vectors that a descent starts from, and the signs of u_i = +-e_1
};

/// What the gradient of a sample is in which a variable is silent: pulled nowhere, |g_i| nearly 0,
/// although it stands in clauses. (One that stands in none is always held.)
enum class Silent : uint8_t {
  Drop,  ///< 0, but for what known variables pass on to their copies
  Hold,  ///< that of the others, as if the silent variable were known
};

/// How one call is solved, and its adjoint. Sizes are docs/layers/maxsat.md's.
struct MaxsatSolve {
  /// Steps are sweeps over all free vectors; the residual is the root mean square over them of
  /// |v_i + g_i / |g_i||, how far a vector is from its own best place.
  StopRule stop = {.max_steps = 100, .rel_tol = 1e-3};
  /// Steps are those of conjugate gradients; the residual is |H y - b| / |b|.
  StopRule adjoint = {.max_steps = 60, .rel_tol = 1e-3};
  int64_t memory = 5;     ///< sweeps that Anderson mixes, at most 16; 0: plain sweeps
  double silence = 1e-6;  ///< silent: |g_i| <= silence sum_j |c_ij|, C = S S^T
  Silent silent = Silent::Drop;
  double saturated = 1e-6;     ///< an output so near to 0 or 1, or an input, is taken to be there
  at::Tensor warm = {};        ///< (B, N, k): vectors to start from, those of an earlier call
  at::Tensor directions = {};  ///< (B, n, k) or (n, k): u_i; undefined: +-e_1
};

/// What the layer finds. Reasons: Converged; MaxSteps; NotUnique where a free variable is silent;
/// NonFinite where z or S is not finite (z is 0.5 there).
struct Assignment {
  at::Tensor z;          ///< (B, n) in [0, 1], taped; known ones are copies of the input
  at::Tensor vectors;    ///< (B, N, k), not taped: the next call's warm start
  at::Tensor objective;  ///< (B) double, |V^T S|^2, not taped
  Report report;         ///< a row for each sample
  std::shared_ptr<LatestReport> latest_adjoint = {};

  /// Of the latest backward pass; a default Report before.
  Report adjoint() const { return latest_adjoint ? latest_adjoint->get() : Report{}; }
};

/// A layer that learns its clauses, the parameter `S` (1 + variables + auxiliary, clauses).
/// Computes in the type of S, float or double, on the CPU.
class Maxsat : public torch::nn::Module {
 public:
  /// S ~ N(0, 1 / (2 (1 + N + clauses))), from the seed. Throws deq::Error for sizes below zero,
  /// and without variables.
  explicit Maxsat(const MaxsatOptions& options);
  /// With clauses of one's own, (1 + variables + auxiliary, m); `options.clauses` is not read.
  Maxsat(const at::Tensor& S, MaxsatOptions options);
  /// The clauses of a text in DIMACS's formats (clauses.h), S in double. `source` names the text in
  /// errors.
  static Maxsat from_clauses(const std::string& dimacs, const std::string& source = "clauses");

  /// z (B, n) of the type of S, in [0, 1] where `known` (B, n) or (n), bool or uint8, says so; not
  /// read elsewhere. A sample's result depends on nothing but its own row. Differentiable once, by
  /// z and S. Throws deq::Error for shapes and types that do not fit, and for a known z outside
  /// [0, 1]. Never for non-convergence: ask `report`.
  Assignment operator()(const at::Tensor& z, const at::Tensor& known,
                        const MaxsatSolve& how = {}) const;

  /// The same with an S of the caller's, taped, of the layer's shape: weights that are shared or
  /// computed.
  Assignment assign(const at::Tensor& S, const at::Tensor& z, const at::Tensor& known,
                    const MaxsatSolve& how = {}) const;

  const at::Tensor& S() const { return S_; }
  const MaxsatOptions& options() const { return options_; }

 private:
  void prepare();

  MaxsatOptions options_;
  at::Tensor S_;
  at::Tensor starts_;  // (N, k) double, unit vectors with a truth component of 0
  at::Tensor signs_;   // (n) double, of u_i
};

}  // namespace deq
