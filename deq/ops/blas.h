// Matrix products on one thread's data through the BLAS that LibTorch has loaded: for kernels that
// run many small products side by side, where a LibTorch call each would cost more than the
// product.
#pragma once

#include <cstdint>

namespace deq::ops {

/// Whether the process has a Fortran BLAS (LibTorch with MKL linked statically may hide it).
bool has_blas();

/// C (m, n) = alpha A B + beta C, all row-major with row strides lda, ldb, ldc. `a_transposed`: A
/// is stored (k, m); `b_transposed`: B is stored (n, k).
void gemm(bool a_transposed, bool b_transposed, int64_t m, int64_t n, int64_t k, float alpha,
          const float* A, int64_t lda, const float* B, int64_t ldb, float beta, float* C,
          int64_t ldc);
void gemm(bool a_transposed, bool b_transposed, int64_t m, int64_t n, int64_t k, double alpha,
          const double* A, int64_t lda, const double* B, int64_t ldb, double beta, double* C,
          int64_t ldc);

}  // namespace deq::ops
