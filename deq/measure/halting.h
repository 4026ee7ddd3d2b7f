// When to stop: rules by which a problem's solve ends, each a point of accuracy and evaluations.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "deq/models/model.h"

namespace deq {

/// Which samples halt now, (B) flags: hears of every evaluation of one solve, z (B, ..., D) and
/// f(z).
using HaltingJudge = std::function<std::vector<char>(const at::Tensor& z, const at::Tensor& fz)>;

/// A rule with its threshold, as `--halting` names it: change:1e-2.
struct HaltingRule {
  std::string name;
  /// A judge for one solve.
  std::function<HaltingJudge(const Model& model)> start;
};

/// The rules that there are:
///   residual  |f(z) - z| / |f(z)| of the sample is at most the threshold
///   change    no place's distribution over answers has moved by more than the threshold, in total
///             variation, in this evaluation and the one before it: what published models look at
/// A comma-separated list of `name:threshold`; empty: none. Throws deq::Error for a rule that is
/// not known and a threshold that is not above 0.
std::vector<HaltingRule> parse_halting(const std::string& text);

/// f, whose samples stay where they are once they have halted: a solve finds them done. What it
/// says of them, that they converged, is the rule's word: judge them by f itself.
Map halting(const Map& f, const HaltingRule& rule, const Model& model);

}  // namespace deq
