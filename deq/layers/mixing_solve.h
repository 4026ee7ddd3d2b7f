// One sample of MAXSAT's relaxation: its descent, and the linear system of its adjoint.
#pragma once

#include <limits>

#include "deq/ops/mixing.h"
#include "deq/solvers/report.h"

namespace deq {

/// How a descent goes on and ends.
struct Descent {
  StopRule stop;
  int64_t memory = 0;  ///< sweeps that Anderson mixes; 0: plain sweeps
};

/// How one sample's descent, or its adjoint, ended.
struct SampleEnd {
  Reason reason = Reason::MaxSteps;
  double residual = 0;
  int64_t steps = 0;
  int64_t silent = 0;  ///< vectors with |g_i| <= floor_i at the end
};

/// Of a sample that holds numbers which are none.
inline constexpr SampleEnd kNotFinite{Reason::NonFinite, std::numeric_limits<double>::quiet_NaN()};

/// Numbers of scratch memory that `descend` and `mixing_adjoint` need for up to n vectors.
int64_t descent_scratch(int64_t n, int64_t width, int64_t memory);
int64_t adjoint_scratch(int64_t n, int64_t width);

/// Sweeps over V (n, width), whose rows are of length 1, until it is stationary: the residual is
/// the root mean square of |v_i + g_i / |g_i||, how far each vector is from its own best place,
/// over the vectors that are not silent, of the V that is returned. `norms` (n) gets |g_i|, 0 for
/// silent ones. Steps are sweeps. NotUnique where a vector is silent, whatever the residual.
///
/// Between sweeps Anderson mixes the last ones (the coefficients that make the mixture of what they
/// moved smallest), and each vector is brought back to length 1. Where a mixture is followed by a
/// sweep that moves more than kWorse times what the best one moved, it begins anew, with as many
/// plain sweeps as it has begun.
template <class T>
SampleEnd descend(const ops::Mixing<T>& problem, const Descent& how, T* V, T* norms, T* scratch);

/// y (n, width) of H y = b on the tangents of V, where H is the second derivative of the energy:
/// (H y)_i = P_i sum_j c_ij y_j + |g_i| y_i, P_i = I - v_i v_i^T, symmetric, and positive
/// semidefinite at a minimum. Conjugate gradients, scaled by |g_i|. y and b are tangents, 0 for
/// silent vectors, which are held; b is written to. The residual is |H y - b| / |b| of the y that
/// is returned, the best: where H is singular and b not in its range, as far as V is from a minimum
/// or its minimum not the only one, residuals fall, and rise again. NaN for a b that is not finite.
template <class T>
SampleEnd mixing_adjoint(const ops::Mixing<T>& problem, const StopRule& stop, const T* V,
                         const T* norms, T* b, T* y, T* scratch);

}  // namespace deq
