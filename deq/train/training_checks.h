#pragma once

#include "deq/data/corpus.h"
#include "deq/train/options.h"

namespace deq {

/// That options, model and data go together: what positions see, how batches are cut, the path of a
/// solve, halting, remembered starts, symbols. Throws deq::Error otherwise.
void check_training(const TrainOptions& options, const Model& model, const Corpus& corpus);

/// Throws deq::Error where a cell that reads and answers by symbol would take one for another, or
/// cannot have as many places as a problem of these has.
void check_symbols(const Model& model, const Corpus& corpus);

}  // namespace deq
