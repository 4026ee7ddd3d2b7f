#pragma once

#include "deq/cells/memory_cell.h"
#include "deq/models/model.h"

namespace deq {

/// What memories did at each place of a problem (L) or (H, W), level by level: where heads stood,
/// what stacks did. Empty for a model whose cells have none. No tape. Throws deq::Error for a model
/// in training mode.
std::vector<MemoryTrack> memory_tracks(Model& model, const at::Tensor& problem);

}  // namespace deq
