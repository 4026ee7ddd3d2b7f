// Sequence against token: equilibria of a text solved at once, one by one with every earlier one
// kept, and one by one with every prefix solved again. The three agree up to the tolerance; the
// last is quadratic in evaluations of positions.
#pragma once

#include "deq/measure/measurement.h"
#include "deq/runs/run.h"

namespace deq {

/// What measure_decoding is told.
struct DecodingOptions {
  EquilibriumOptions equilibrium;
  std::vector<int64_t> lengths = {32, 64, 128, 256, 512};
  int64_t prefixes = 8;

  static void fields(auto& self, auto&& field) {
    field("lengths", self.lengths, "tokens of the text");
    field("prefixes", self.prefixes, "of those that are solved again, evenly spread",
          between(1, 4096));
    EquilibriumOptions::solve_fields(self.equilibrium, field);
  }
};

/// On the split's first tokens, batch 1, each with all earlier ones in sight. What solving every
/// prefix again takes is the mean time of `prefixes` of them. The changes of log p are against all
/// at once: how far the equilibria are those of the text, which they are where all converged.
/// Throws deq::Error for an explicit network, a task that continues no text, and a split too short.
Measurement measure_decoding(const TrainedModel& run, const Split& split,
                             const DecodingOptions& options);

}  // namespace deq
