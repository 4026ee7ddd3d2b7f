// What a Transformer's cell makes of its parameters once: for its own sources.
#pragma once

#include "deq/cells/transformer.h"
#include "deq/ops/affine.h"

namespace deq {

/// The weights in force, in the layout of the kernels.
struct TransformerCell::InForce {
  ops::BlockWeights block;
  ops::AffineWeight inject, positions;
  ops::AffineWeight keys_and_values;  // the last 2 D rows of block.qkv
};

/// Those of evaluation mode without a tape.
struct TransformerCell::Fixed {
  InForce weights;
  at::Tensor r;  // (R, D) projected positions of the distances R - 1 .. 0
};

}  // namespace deq
