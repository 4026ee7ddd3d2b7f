#include "deq/ops/blas.h"

// Weak: found among what LibTorch loads, without a BLAS of our own to link and without a second one
// in the process.
extern "C" {
void sgemm_(const char*, const char*, const int*, const int*, const int*, const float*,
            const float*, const int*, const float*, const int*, const float*, float*, const int*)
    __attribute__((weak));
void dgemm_(const char*, const char*, const int*, const int*, const int*, const double*,
            const double*, const int*, const double*, const int*, const double*, double*,
            const int*) __attribute__((weak));
}

namespace deq::ops {
namespace {

/// Row-major C = A B is column-major C^T = B^T A^T.
template <class T, class F>
void call(F f, bool at, bool bt, int64_t m, int64_t n, int64_t k, T alpha, const T* A, int64_t lda,
          const T* B, int64_t ldb, T beta, T* C, int64_t ldc) {
  const char ta = at ? 'T' : 'N', tb = bt ? 'T' : 'N';
  const int im = int(m), in = int(n), ik = int(k), ia = int(lda), ib = int(ldb), ic = int(ldc);
  f(&tb, &ta, &in, &im, &ik, &alpha, B, &ib, A, &ia, &beta, C, &ic);
}

}  // namespace

bool has_blas() { return sgemm_ != nullptr && dgemm_ != nullptr; }

void gemm(bool at, bool bt, int64_t m, int64_t n, int64_t k, float alpha, const float* A,
          int64_t lda, const float* B, int64_t ldb, float beta, float* C, int64_t ldc) {
  call(sgemm_, at, bt, m, n, k, alpha, A, lda, B, ldb, beta, C, ldc);
}
void gemm(bool at, bool bt, int64_t m, int64_t n, int64_t k, double alpha, const double* A,
          int64_t lda, const double* B, int64_t ldb, double beta, double* C, int64_t ldc) {
  call(dgemm_, at, bt, m, n, k, alpha, A, lda, B, ldb, beta, C, ldc);
}

}  // namespace deq::ops
