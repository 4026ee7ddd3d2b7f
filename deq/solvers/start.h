// What a solve can start from.
#pragma once

#include "deq/base/map.h"

namespace deq {

/// Throws deq::Error unless f can be called and z0 is of finite floating-point numbers.
void check_start(const Map& f, const at::Tensor& z0);

}  // namespace deq
