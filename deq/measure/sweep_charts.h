#pragma once

#include "deq/measure/sweep.h"
#include "deq/report/chart.h"

namespace deq {

/// The charts of a sweep: accuracy against evaluations, operations and seconds; accuracy and
/// evaluations to converge against the problems' size; residuals of right and wrong problems;
/// starts. Each run is a thin line, their mean a thick one; explicit networks are points.
std::vector<Chart> sweep_charts(const std::vector<SweptRun>& runs);

}  // namespace deq
