// Which options of a solve's path go together.
#pragma once

#include "deq/data/corpus.h"
#include "deq/train/options.h"

namespace deq {

/// That what is trained is what halts at test time. Throws deq::Error otherwise.
void check_halting(const TrainOptions& options, const Model& model);

/// Of start = remembered: that problems come again, and that where a solve begins is not itself
/// what is trained. Throws deq::Error otherwise.
void check_remembering(const TrainOptions& options, const Corpus& corpus);

}  // namespace deq
