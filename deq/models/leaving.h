#pragma once

#include "deq/models/model.h"

namespace deq {

/// f of some problems (B, ...) from which a solve's evaluations leave out those that are done: the
/// others are bound anew, as a smaller batch, whenever a quarter of those bound is done. A problem
/// that is done keeps its last f(z), as the driver holds its state. The model must not change
/// meanwhile; no tape.
Map leaving(Model& model, const at::Tensor& tokens);

}  // namespace deq
