// Right factors of products, laid out once for the kernels that read them many times: panels of as
// many columns as two vectors of this processor hold, each contiguous, the last filled up with
// zeros.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "deq/ops/panels.h"
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

/// What a layout of type `type` holds of a weight: the same numbers, or those rounded to bfloat16
/// in the weight's own type, without a tape.
at::Tensor weight_as(const at::Tensor& weight, WeightType type);

/// W^T of a weight W (n, k), float or double on the CPU, packed: the right factor of x W^T. With
/// `transposed` W itself, that of dy W. One-dimensional, detached. Bfloat16 halves the floats of a
/// weight that weight_as() has rounded; doubles stay as they are.
at::Tensor packed_weight(const at::Tensor& weight, bool transposed,
                         WeightType type = WeightType::Exact);

/// to (rows, n) = x (rows, k) B, or += with `add`; all contiguous, B (k, n) as pack() leaves it.
/// Few rows of a large B take all threads, more the calling one.
void packed_product(int64_t rows, int64_t n, int64_t k, const float* x, const float* panels,
                    float* to, bool add);
void packed_product(int64_t rows, int64_t n, int64_t k, const double* x, const double* panels,
                    double* to, bool add);

/// How the kernels read what packed_weight() or a stack of them holds.
template <class T>
Panels<T> panels_of(const at::Tensor& packed) {
  if (packed.scalar_type() == at::kInt)
    return {nullptr, static_cast<const Bfloat16Pair*>(packed.data_ptr())};
  return {packed.data_ptr<T>(), nullptr};
}

/// Numbers in each of the layouts of a stack, (., elements).
inline int64_t numbers_in(const at::Tensor& stack) {
  return stack.size(1) * (stack.scalar_type() == at::kInt ? kNumbers<Bfloat16Pair> : 1);
}

}  // namespace deq::ops
