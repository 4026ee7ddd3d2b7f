#pragma once

#include "deq/base/map.h"

namespace deq {

/// Hutchinson estimate of |J|_F^2 / n at z (Bai, Koltun, Kolter 2021): the mean over `probes` of
/// |v^T J|^2 / n with v ~ N(0, I) and n the number of elements of z, batch included; 0 of a z
/// without any. A scalar, differentiable with respect to what f captured; z itself is held fixed.
/// f must be twice differentiable. Needs a tape: throws deq::Error in InferenceMode, which records
/// none.
at::Tensor jacobian_loss(const Map& f, const at::Tensor& z, int64_t probes = 1);

}  // namespace deq
