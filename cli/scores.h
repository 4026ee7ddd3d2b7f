// How the commands print what they found, and of which f.
#pragma once

#include <fmt/format.h>

#include <cmath>
#include <string>

#include "deq/models/model.h"
#include "deq/train/evaluate.h"

namespace deq::cli {

/// Of problems with answers. Rounded down: 100.0% stands for all of them.
inline std::string answer_text(const Evaluation& e) {
  const auto per_cent = [](double share) { return std::floor(1000 * share + 1e-9) / 10; };
  if (!e.scores_text.empty()) return e.scores_text;
  if (e.answer == kEveryPosition)
    return fmt::format("exact {:.1f}% of problems, {:.1f}% of places right; cross-entropy {:.4g}",
                       per_cent(e.exact_share), per_cent(e.right_share), e.loss);
  return fmt::format(
      "cross-entropy {:.4g} over all positions, {:.4g} over the {} recalled; {:.1f}% of sequences "
      "recalled exactly",
      e.loss, e.answer_loss, e.answer, per_cent(e.exact_share));
}

inline const char* weight_type_name(const Model& model) {
  return Names<WeightType>::values[size_t(model.weight_type())];
}

/// Says where f is not that of the exact weights.
inline std::string weight_type_text(const Model& model) {
  if (model.weight_type() == WeightType::Exact) return "";
  return fmt::format("; weights rounded to {}", weight_type_name(model));
}

/// At which of their own evaluations problems halted.
inline std::string halting_text(const Evaluation& e) {
  return fmt::format(
      "{} halted {:.1f}% of problems, {:.1f} evaluations each; there residual mean {:.1e}, "
      "converged {:.2f}%",
      e.halting, std::floor(1000 * e.halted_share) / 10, e.halting_steps, e.mean_residual,
      std::floor(1e4 * e.converged_share) / 100);
}

/// How the states were found.
inline std::string solve_text(const Evaluation& e) {
  if (!e.halting.empty()) return halting_text(e);
  if (e.depth > 0) return fmt::format("explicit network of {} levels", e.depth);
  return fmt::format(
      "residual mean {:.1e}, worst {:.1e}; converged {:.2f}%; {:.1f} evaluations per solve",
      e.mean_residual, e.worst_residual, std::floor(1e4 * e.converged_share) / 100, e.evaluations);
}

}  // namespace deq::cli
