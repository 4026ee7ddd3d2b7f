#pragma once

#include "deq/train/optimizer.h"

namespace deq {

/// The norm of the parameters' gradients, by one thread in one pass: with shards every process
/// computes it for itself. Its rounding is another than that of `Descent::norm`, which takes ten
/// times as long.
double gradient_norm(const NamedTensors& parameters);

}  // namespace deq
