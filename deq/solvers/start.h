// What a solve can start from.
#pragma once

#include "deq/solvers/layout.h"
#include "deq/solvers/report.h"

namespace deq {

/// Throws deq::Error unless f can be called and z0 is of floating-point numbers.
void check_start(const Map& f, const at::Tensor& z0);

/// Where rows are not finite, counts those whose z0 was not: f is not to blame for them.
void count_bad_starts(Report& report, const at::Tensor& z0, const Layout& layout);

}  // namespace deq
