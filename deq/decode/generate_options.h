#pragma once

#include "deq/decode/sampling.h"
#include "deq/layers/equilibrium.h"
#include "deq/models/model.h"

namespace deq {

/// How texts are continued, as a command or a program says it.
struct GenerateOptions {
  int64_t tokens = 100;
  int64_t history = 0;
  int64_t seed = 0;
  ReadingOptions reading;
  SamplingOptions sampling;
  EquilibriumOptions equilibrium;

  static void fields(auto& self, auto&& field) {
    field("tokens", self.tokens, "tokens to generate", at_least(1));
    field("history", self.history,
          "earlier positions that are seen at most; 0: as many as the run's evaluation sees",
          between(0, 1 << 30));
    field("seed", self.seed, "of the draws; 0: another one each time", at_least(0));
    field("", self.reading);
    field("", self.sampling);
    EquilibriumOptions::solve_fields(self.equilibrium, field);
  }
};

}  // namespace deq
