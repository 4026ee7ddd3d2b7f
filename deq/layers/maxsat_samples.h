// A batch of MAXSAT's samples, each solved alone by one thread: from tensors to the kernels and
// back.
#pragma once

#include <ATen/core/Tensor.h>

#include "deq/layers/maxsat.h"

namespace deq {

/// One call, all of it detached, contiguous and on the CPU; floating numbers of one type, T.
struct MaxsatCall {
  MaxsatSolve how;
  at::Tensor C;           ///< (1 + N, 1 + N), S S^T
  at::Tensor z, known;    ///< (B, n); known is bool
  at::Tensor starts;      ///< (N, k) double
  at::Tensor warm;        ///< (B, N, k), or undefined
  at::Tensor directions;  ///< (B, n, k), or undefined: signs (n) double times e_1
  at::Tensor signs;
};

/// What forward finds and backward reads.
struct MaxsatFound {
  at::Tensor z, vectors, objective;
  at::Tensor norms;    ///< (B, N), |g_i| of free vectors times `scale`, 0 of silent and known ones
  double scale = 1;    ///< a power of two that brings C to about 1
  bool finite = true;  ///< C is
  Report report;
};
MaxsatFound maxsat_forward(const MaxsatCall& call);

/// Gradients given those of z (B, n), contiguous.
struct MaxsatGradients {
  at::Tensor C;  ///< of C as a matrix without symmetry; undefined where it is not wanted
  at::Tensor z;  ///< the same
  Report report;
};
MaxsatGradients maxsat_backward(const MaxsatCall& call, const MaxsatFound& found,
                                const at::Tensor& dz, bool want_C, bool want_z);

}  // namespace deq
