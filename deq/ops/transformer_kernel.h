// The row kernels of the Transformer's block: what stands before and after its attention, some rows
// at a time, so that a block of rows never leaves the cache on its way through.
#pragma once

#include <cstdint>

#include "deq/ops/panels.h"

namespace deq::ops {

/// Where the layer norms of a Transformer's block stand.
enum class NormPlace { Post, Pre, PrePublished };

/// Weights of the block as right factors of products, packed (packed.h); D features, I inner units.
template <class T>
struct BlockPanels {
  Panels<T> qkv, output, inner, outer;
};

/// A (rows, n) matrix, contiguous, or none; masks have one row for every `positions` rows.
template <class T>
struct BlockRows {
  int64_t positions = 1;  // T
  int64_t width = 0;      // D
  int64_t inner = 0;      // I
  NormPlace norm = NormPlace::Post;
  BlockPanels<T> weights;  // forward: W^T; backward: W
  const T *output_bias = nullptr, *inner_bias = nullptr, *outer_bias = nullptr;
  const T *output_mask = nullptr, *inner_mask = nullptr, *outer_mask = nullptr;

  const T* z = nullptr;         // (., D)
  const T* injected = nullptr;  // (., 3 D) or none
  T* qkv = nullptr;             // (., 3 D)
  T* seen = nullptr;            // (., D) what attention gives
  T* f = nullptr;               // (., D)

  // Kept for backward, or none.
  T* normed = nullptr;  // (., D) of z + O seen
  T* hidden = nullptr;  // (., I) after relu and mask
  T* spread =
      nullptr;  // (., 2) 1 / standard deviation in the norm after attention, and in the last
};

// Each of these works in the calling thread but for products of a few rows, which take the others
// too where they are idle.

/// Rows begin .. end - 1: qkv from z.
void project_rows(const BlockRows<float>& b, int64_t begin, int64_t end, float* scratch);
void project_rows(const BlockRows<double>& b, int64_t begin, int64_t end, double* scratch);

/// Rows begin .. end - 1: f from z and seen.
void feed_rows(const BlockRows<float>& b, int64_t begin, int64_t end, float* scratch);
void feed_rows(const BlockRows<double>& b, int64_t begin, int64_t end, double* scratch);

/// What the backward kernels of some rows read and write.
template <class T>
struct BlockGradients {
  const T* df = nullptr;  // (., D)
  T* seen = nullptr;      // (., D)
  T* qkv = nullptr;       // (., 3 D)
  T* z = nullptr;         // (., D): feed_rows_backward leaves the part around attention in it
  // Of the results of the three products, for the gradients of their weights; or none.
  T *output = nullptr, *inner = nullptr, *outer = nullptr;  // (., D), (., I), (., D)
};

/// Rows begin .. end - 1: gradients of seen, and of z but for its way through qkv.
void feed_rows_backward(const BlockRows<float>& b, const BlockGradients<float>& g, int64_t begin,
                        int64_t end, float* scratch);
void feed_rows_backward(const BlockRows<double>& b, const BlockGradients<double>& g, int64_t begin,
                        int64_t end, double* scratch);

/// Rows begin .. end - 1: adds to the gradient of z that of qkv.
void project_rows_backward(const BlockRows<float>& b, const BlockGradients<float>& g, int64_t begin,
                           int64_t end, float* scratch);
void project_rows_backward(const BlockRows<double>& b, const BlockGradients<double>& g,
                           int64_t begin, int64_t end, double* scratch);

/// Numbers of scratch memory that any of them needs for `rows` rows.
int64_t block_scratch(int64_t rows, int64_t width, int64_t inner);

}  // namespace deq::ops
