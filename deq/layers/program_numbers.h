#pragma once

#include <ATen/core/Tensor.h>

#include "deq/layers/quadratic_program.h"
#include "deq/layers/sparse_pattern.h"
#include "deq/ops/quadratic_kernel.h"

namespace deq {

/// Numbers of a program's six tensors in double, by sample or shared.
struct ProgramNumbers {
  ops::QuadraticShape shape;
  int64_t batch = 1;
  bool batched = false;                          ///< whether any tensor has B
  std::shared_ptr<const SparsePattern> pattern;  ///< none: dense
  at::Tensor Q, q, A, b, G, h;                   ///< of sparse ones the values

  /// Throw deq::Error.
  explicit ProgramNumbers(const QuadraticProgram& program);
  explicit ProgramNumbers(const SparseProgram& program);

  /// Dimensions of Q, A and G without B.
  int64_t matrix_dimensions() const { return pattern ? 1 : 2; }
  /// Of sample i, n or fewer dimensions `own` without B.
  static const double* of_sample(const at::Tensor& t, int64_t own, int64_t i);
  /// Q, A and G of sample i as dense matrices, one behind the other.
  std::vector<double> dense_matrices(int64_t i) const;

  struct Input;  ///< a tensor and its name

 private:
  void take_batch(const Input& input);
};

}  // namespace deq
