// When to stop: rules by which a problem's solve ends, each a point of accuracy and evaluations.
#pragma once

#include <string>
#include <vector>

#include "deq/models/model.h"

namespace deq {

/// A rule as `--halting` of a sweep has it, and its name there: change:0.01.
struct SweptRule {
  std::string name;
  Halting rule;
};

/// A comma-separated list of `residual:T`, `change:T` and `trained`, which is the rule that the
/// model was trained with, if there is one, and with `trained:T` that rule at another threshold;
/// `none`: none. Throws deq::Error for a rule that is not known and a threshold out of range.
std::vector<SweptRule> parse_halting(const std::string& text, const Model& model);

/// f, whose samples stay where they are once they have halted: a solve finds them done. What it
/// says of them, that they converged, is the rule's word: judge them by f itself. The rule is not
/// learned.
Map halting(const Map& f, const Halting& rule, const Model& model);

}  // namespace deq
