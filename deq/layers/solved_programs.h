// A batch of quadratic programs, solved, with the factors that their gradients need.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "deq/layers/exact_program.h"
#include "deq/layers/program_blocks.h"
#include "deq/layers/program_numbers.h"
#include "deq/layers/smoothed_factor.h"
#include "deq/layers/sparse_solver.h"

namespace deq {

/// Solves in its constructor; what it keeps, it keeps for solve().
class SolvedPrograms {
 public:
  SolvedPrograms(const ProgramNumbers& numbers, const MinimiseOptions& options, double precision,
                 bool keep_factors);

  // (B, ...), double. `at_*`: the point whose gradient is taken.
  at::Tensor z, nu, lam, certificate, at_z, at_nu, at_lam;
  at::Tensor active, weak, factorisations;
  Report report;
  const std::shared_ptr<LatestReport> adjoint = std::make_shared<LatestReport>();

  /// w of K w = g for all samples, in place, contiguous (B, ...) double; 0 where there is no
  /// gradient. Reports to `adjoint`.
  void solve(at::Tensor& gz, at::Tensor& gnu, at::Tensor& glam) const;
  const ops::QuadraticShape& shape() const { return shape_; }
  const SparsePattern* pattern() const { return pattern_.get(); }  ///< null: dense
  const Degenerate& degenerate() const { return degenerate_; }

 private:
  /// Samples that went through the kernels together, and their factors.
  struct Kept {
    std::vector<int64_t> samples;
    ops::ReducedFactors factors;
  };
  /// A program made dense, where sparse factors left it open.
  struct Dense {
    ScaledMatrices matrices;
    ScaledProgram program;
    Dense(const ProgramNumbers& numbers, int64_t i, const double* all, FarRows far);
  };
  const ScaledVectors& vectors(int64_t i) const {
    return pattern_ ? vectors_[size_t(i)] : programs_[size_t(i)];
  }
  /// Null: too large a sparse one.
  const ScaledProgram* program(int64_t i);
  const SparseMatrices& sparse_matrices(int64_t i) const {
    return sparse_[sparse_.size() > 1 ? size_t(i) : 0];
  }
  void scale(const ProgramNumbers& numbers, double concave);
  /// Whether what was found without far rows stands: they hold, and do not matter.
  bool far_rows_hold(int64_t i) const;
  /// Forgets what was found and the scaling, for one with all rows.
  void begin_with_all_rows(int64_t i);
  bool through_sparse(int64_t i, const ops::QuadraticLimits& limits);
  void solve_open(int64_t group, std::vector<int64_t> open, const ops::QuadraticLimits& limits);
  void solve_group(int64_t group, const ops::QuadraticLimits& limits, const bool* warm);
  /// Through the kernels; returns the samples that they left open.
  std::vector<int64_t> through_kernels(const std::vector<int64_t>& samples,
                                       const ops::QuadraticLimits& limits, std::vector<Kept>& kept);
  void with_all_care(int64_t sample, const ops::QuadraticLimits& limits);
  /// Of sample i, whose numbers stand in the program's own units. False: they are too large for the
  /// type, which says nothing of them then, and the sample has no solution.
  bool finish(int64_t i, Reason reason, double residual);
  void solve_kept(const Kept& kept, std::vector<ops::ReducedRight>& rights,
                  std::vector<uint8_t>& known) const;
  void solve_sparse(int64_t i, ops::ReducedRight& right) const;
  void smooth(int64_t i);

  ops::QuadraticShape shape_;
  int64_t batch_, together_;
  double most_;  // the largest number of the type
  bool keep_;
  Degenerate degenerate_;
  std::vector<ScaledMatrices> matrices_;  // 1 or B
  std::vector<ScaledProgram> programs_;
  // Of sparse programs, in place of these: matrices 1 or B, the rest B, factors where they serve.
  std::shared_ptr<const SparsePattern> pattern_;
  std::vector<SparseMatrices> sparse_;
  std::vector<ScaledVectors> vectors_;
  std::vector<SparseFactor> sparse_factors_;
  std::vector<std::unique_ptr<Dense>> dense_;
  const ProgramNumbers* numbers_ = nullptr;  // while the constructor runs
  std::vector<std::vector<Kept>> kept_;      // by group
  std::vector<std::unique_ptr<ProgramBlocks>> exact_;
  std::vector<std::unique_ptr<SmoothedFactor>> smoothed_;
};

}  // namespace deq
