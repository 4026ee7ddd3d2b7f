// Which options of a solve's path, and which data, go together.
#pragma once

#include "deq/data/corpus.h"
#include "deq/train/options.h"

namespace deq {

/// Throws deq::Error where a cell that reads and answers by symbol would take one for another, or
/// cannot have as many places as a problem of these has.
void check_symbols(const Model& model, const Corpus& corpus);

/// That what is trained is what halts at test time. Throws deq::Error otherwise.
void check_halting(const TrainOptions& options, const Model& model);

/// Of start = remembered: that problems come again, and that where a solve begins is not itself
/// what is trained. Throws deq::Error otherwise.
void check_remembering(const TrainOptions& options, const Corpus& corpus);

}  // namespace deq
