// The kernels of mixing.h, for one sample, and the row operations of its adjoint's conjugate
// gradients. States are (n, width); sums of a row are in T, those over rows in double.
#pragma once

#include "deq/ops/mixing.h"

namespace deq::ops {

/// Numbers in a row of vectors of that rank: whole vectors of the processor.
template <class T>
int64_t mixing_width(int64_t rank);

/// mixing_sweep_reference in blocks; `block` are kMixingBlock * width numbers of scratch memory.
double mixing_sweep(const Mixing<float>& problem, float* V, float* moved, float* block);
double mixing_sweep(const Mixing<double>& problem, double* V, double* moved, double* block);

/// C V + base; base may be null.
void mixing_product(const Mixing<float>& problem, const float* V, const float* base, float* out);
void mixing_product(const Mixing<double>& problem, const double* V, const double* base,
                    double* out);

/// Each row of V to length 1; one that is shorter than 1e-3 becomes that of `otherwise`.
void unit_rows(int64_t n, int64_t width, const float* otherwise, float* V);
void unit_rows(int64_t n, int64_t width, const double* otherwise, double* V);

/// norms[i] = |g_i|, or 0 where it is at most floor[i]; returns sum_i |v_i + g_i / |g_i||^2 over
/// the others.
double mixing_residual(const Mixing<float>& problem, const float* V, const float* G, float* norms);
double mixing_residual(const Mixing<double>& problem, const double* V, const double* G,
                       double* norms);

/// For each row z = z - (z . v) v + norms[i] y, or 0 where norms[i] is 0; returns sum y . z.
double tangent_rows(int64_t n, int64_t width, const float* V, const float* norms, const float* Y,
                    float* Z);
double tangent_rows(int64_t n, int64_t width, const double* V, const double* norms, const double* Y,
                    double* Z);

/// X += a P, R -= a Q; returns sum_i |R_i|^2, and in `scaled` sum_i |R_i|^2 / norms[i] (0 where
/// that is 0).
double conjugate_step(int64_t n, int64_t width, double a, const float* P, const float* Q,
                      const float* norms, float* X, float* R, double& scaled);
double conjugate_step(int64_t n, int64_t width, double a, const double* P, const double* Q,
                      const double* norms, double* X, double* R, double& scaled);

/// P_i = R_i / norms[i] + b P_i (0 where that is 0).
void conjugate_direction(int64_t n, int64_t width, double b, const float* R, const float* norms,
                         float* P);
void conjugate_direction(int64_t n, int64_t width, double b, const double* R, const double* norms,
                         double* P);

}  // namespace deq::ops
