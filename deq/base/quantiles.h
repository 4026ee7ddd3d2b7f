#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace deq {

/// The pinball loss (Koenker, Bassett 1978) of forecasts (..., Q or 1) of targets (...), the mean
/// over the quantiles at `percents`: max(q e, (q - 1) e) with e = target - forecast.
at::Tensor pinball(const at::Tensor& forecasts, const at::Tensor& targets,
                   const std::vector<int64_t>& percents);

}  // namespace deq
