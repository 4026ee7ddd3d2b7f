// A step down an energy as a map whose equilibria are the energy's stationary points.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>

#include "deq/base/map.h"

namespace deq {

/// E of each sample: z (B, ...) -> (B), of LibTorch operators, and of its own sample alone. Two
/// derivatives where gradients are wanted: no ReLU.
using EnergyOf = std::function<at::Tensor(const at::Tensor& z)>;

namespace ops {

/// f(z) = z - eta grad E(z), with E as its energy. `eta` is one number, or one of each sample (B).
/// Energies are added up, never averaged: no sample's step depends on how many stand beside it.
/// Its Map::energy takes the numbers of a state in any shape (B, ...), as methods have them, where
/// `shape` says what E is to be given; empty: as they come. Throws deq::Error at its calls where E
/// is not (B) or does not depend on z, where a tape is recorded and E is linear in z, and in
/// InferenceMode.
Map gradient_step(EnergyOf energy, const at::Tensor& eta, std::vector<int64_t> shape = {});

}  // namespace ops
}  // namespace deq
