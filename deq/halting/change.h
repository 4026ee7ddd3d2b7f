#pragma once

#include "deq/halting/halting.h"

namespace deq {

/// A sample halts where no place's distribution over answers has moved by more than the threshold,
/// in total variation, in the latest evaluation and the one before it: what published models of
/// many loops look at, with other distances.
struct HaltByChange {
  static constexpr const char* name = "change";
  double threshold = 1e-2;

  static void fields(auto& self, auto&& field) {
    field("threshold", self.threshold,
          "halts where no distribution over answers moves by more, in total variation, twice in a "
          "row",
          above(0));
  }
  std::unique_ptr<HaltingJudge> judge(const Readout& readout, int64_t first) const;
};

}  // namespace deq
