// Right factors of products, laid out once for the kernels that read them many times: panels of as
// many columns as two vectors of this processor hold, each contiguous, the last filled up with
// zeros.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "deq/ops/strided.h"

namespace deq::ops {

/// Columns in a panel.
template <class T>
int64_t panel_width();

/// Numbers in the panels of a (k, n) matrix.
template <class T>
int64_t packed_size(int64_t k, int64_t n) {
  const int64_t W = panel_width<T>();
  return (n + W - 1) / W * W * k;
}

/// Writes B (k, n) to `out`: packed_size numbers, panels k W apart.
void pack(const Strided<float>& b, int64_t k, int64_t n, float* out);
void pack(const Strided<double>& b, int64_t k, int64_t n, double* out);

/// W^T of a weight W (n, k), float or double on the CPU, packed: the right factor of x W^T. With
/// `transposed` W itself, that of dy W. One-dimensional, detached.
at::Tensor packed_weight(const at::Tensor& weight, bool transposed);

}  // namespace deq::ops
