// How the commands print what an evaluation found.
#pragma once

#include <fmt/format.h>

#include <cmath>
#include <string>

#include "deq/train/evaluate.h"

namespace deq::cli {

/// Of sequences with answers. Rounded down: 100.0% stands for all of them.
inline std::string answer_text(const Evaluation& e) {
  return fmt::format(
      "cross-entropy {:.4g} over all positions, {:.4g} over the {} recalled; {:.1f}% of sequences "
      "recalled exactly",
      e.loss, e.answer_loss, e.answer, std::floor(1000 * e.exact_share + 1e-9) / 10);
}

}  // namespace deq::cli
