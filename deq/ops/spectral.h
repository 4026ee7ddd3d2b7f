// Circular convolutions as products at each frequency. The transforms are products as well, with
// matrices of cosines, by the kernel whose rows have the same bits whatever stands beside them,
// which LibTorch's Fourier transforms and convolutions do not promise. A complex number is a pair
// of reals, a complex matrix M the real one [[re M, -im M], [im M, re M]], whose transpose is M's
// conjugate transpose and whose inverse is M's inverse.
#pragma once

#include <ATen/core/Tensor.h>

#include "deq/ops/unchanged.h"

namespace deq::ops {

/// Places of a torus, rows x columns, and its frequencies: those of real numbers.
struct Torus {
  int64_t rows = 1, columns = 1;
  int64_t frequencies() const { return rows * (columns / 2 + 1); }
};

/// z (B, rows, columns, C) -> (F, B, 2 C), the real parts before the imaginary ones;
/// differentiable.
at::Tensor to_spectrum(const Torus& torus, const at::Tensor& z);
/// Its inverse.
at::Tensor from_spectrum(const Torus& torus, const at::Tensor& spectrum);

/// (F, 2 n, 2 k): what the convolution y[o, p] = sum_a K[o, i, a] z[i, p + a - centre] is at each
/// frequency, for a kernel K (n, k, height, width) with odd sides; differentiable.
at::Tensor transfer(const Torus& torus, const at::Tensor& kernel);

/// A weight M (F, n, k), and its layout; none on a GPU.
struct SpectralWeight {
  at::Tensor weight;    ///< taped
  at::Tensor panels;    ///< (F, .), of each M^T
  at::Tensor back;      ///< (F, .), of each M
  Unchanged unchanged;  ///< the weight
};
SpectralWeight spectral_weight(const at::Tensor& weight);

/// x[f] M[f]^T at each frequency: (F, B, k) -> (F, B, n); differentiable, twice as well.
at::Tensor spectral_product(const at::Tensor& x, const SpectralWeight& weight);

}  // namespace deq::ops
