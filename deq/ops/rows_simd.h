// The SIMD kernels behind rows.h: rows [begin, end) of pointers to (R, n) states.
#pragma once

#include <cstdint>

namespace deq::ops {

void simd_dots(const float* const* history, int64_t m, const float* g, int64_t n, int64_t begin,
               int64_t end, double* out);
void simd_dots(const double* const* history, int64_t m, const double* g, int64_t n, int64_t begin,
               int64_t end, double* out);
void simd_mix(const double* coefficients, const float* const* history, int64_t m, const float* base,
              int64_t n, int64_t begin, int64_t end, float* out);
void simd_mix(const double* coefficients, const double* const* history, int64_t m,
              const double* base, int64_t n, int64_t begin, int64_t end, double* out);

/// next = z + base + sum_k coefficients[k] history[k], step = next - z, and dots[r m + k] the inner
/// product of rows r of history[k] and step.
void simd_step(const double* coefficients, const float* const* history, int64_t m, const float* z,
               const float* base, int64_t n, int64_t begin, int64_t end, float* next, float* step,
               double* dots);
void simd_step(const double* coefficients, const double* const* history, int64_t m, const double* z,
               const double* base, int64_t n, int64_t begin, int64_t end, double* next,
               double* step, double* dots);

/// g = fz - z, and norms[2 r], norms[2 r + 1] the norms of rows r of g and fz.
void simd_residual(const float* z, const float* fz, int64_t n, int64_t begin, int64_t end, float* g,
                   double* norms);
void simd_residual(const double* z, const double* fz, int64_t n, int64_t begin, int64_t end,
                   double* g, double* norms);

/// out[r] = |a - b| of rows r, summed in double.
void simd_distances(const float* a, const float* b, int64_t n, int64_t begin, int64_t end,
                    double* out);
void simd_distances(const double* a, const double* b, int64_t n, int64_t begin, int64_t end,
                    double* out);

/// The instruction set that the kernels run with here, as Highway names it ("AVX2").
const char* simd_target();

}  // namespace deq::ops
