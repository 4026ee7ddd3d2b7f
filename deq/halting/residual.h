#pragma once

#include "deq/halting/halting.h"

namespace deq {

/// A sample halts where |f(z) - z| <= threshold |f(z)|, over all of its numbers, and is left at
/// that z.
struct HaltByResidual {
  static constexpr const char* name = "residual";
  double threshold = 1e-2;

  static void fields(auto& self, auto&& field) {
    field("threshold", self.threshold, "halts where |f(z) - z| <= threshold |f(z)|", above(0));
  }
  std::unique_ptr<HaltingJudge> judge(const Readout& readout, int64_t first) const;
};

}  // namespace deq
