// What is gained by seeing both sides: a run of task masked beside a causal model of the same text,
// on the same characters.
#pragma once

#include "deq/measure/measurement.h"
#include "deq/runs/run.h"

namespace deq {

/// What measure_sides and measure_anew are told.
struct SidesOptions {
  int64_t batch = 32;
  int64_t max_steps = 0;

  static void fields(auto& self, auto&& field) {
    field("max_steps", self.max_steps, "steps of a solve at most; 0: what each run says",
          at_least(0));
    field("batch", self.batch, "problems evaluated side by side", between(1, 1 << 16));
  }
};

/// On each of the masked run's further test sets: bits a character of its holes, and of the causal
/// run for the same characters. That one reads the text of the same piece, whole, up to each: what
/// is a hole before it, it sees. Holes at a piece's first place are left out, where it has nothing
/// to read. `texts` are the masked run's data. Throws deq::Error for a run that is not of task
/// masked, for another that continues no text or whose vocabulary is another.
Measurement measure_sides(const TrainedModel& masked, const TrainedModel& causal,
                          const Corpus& texts, const SidesOptions& options);

/// What measure_anew is told.
struct AnewOptions {
  int64_t tokens = 256;
  int64_t max_steps = 0;

  static void fields(auto& self, auto&& field) {
    field("max_steps", self.max_steps, "steps of a solve at most; 0: what each run says",
          at_least(0));
    field("tokens", self.tokens, "characters of the test split that are told one by one",
          between(1, 1 << 24));
  }
};

/// The first characters of `text`, each told from those before: by the causal run, which keeps
/// their equilibria, and by the masked one, which solves all of them again for each, from where
/// they stood and from the start. No more characters are seen than the pieces of the masked run
/// have, less one. Errors as of measure_sides, and for a text that is shorter.
Measurement measure_anew(const TrainedModel& masked, const TrainedModel& causal, const Split& text,
                         const AnewOptions& options);

}  // namespace deq
