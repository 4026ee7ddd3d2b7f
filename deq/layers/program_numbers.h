#pragma once

#include <ATen/core/Tensor.h>

#include "deq/layers/quadratic_program.h"
#include "deq/ops/quadratic_kernel.h"

namespace deq {

/// Numbers of a program's six tensors in double, by sample or shared.
struct ProgramNumbers {
  ops::QuadraticShape shape;
  int64_t batch = 1;
  bool batched = false;  ///< whether any tensor has B
  at::Tensor Q, q, A, b, G, h;

  /// Throws deq::Error.
  explicit ProgramNumbers(const QuadraticProgram& program);
};

}  // namespace deq
