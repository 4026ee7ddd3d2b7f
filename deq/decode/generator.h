// Generation one token at a time: earlier equilibria are kept and never solved again.
#pragma once

#include <functional>

#include "deq/decode/sampling.h"
#include "deq/models/language_model.h"

namespace deq {

struct GenerationReport {
  int64_t prompt_tokens = 0;
  int64_t tokens = 0;  ///< generated
  int64_t prompt_evaluations = 0;
  double prompt_converged_share = 1;  ///< of the prompt's positions, least of what was fed
  int64_t evaluations = 0;            ///< of f, for the generated tokens
  int64_t converged = 0;              ///< generated tokens whose equilibrium converged
  double worst_residual = 0;
};

/// Continues a text. The prompt is solved at once; each new token then costs one solve of one
/// position against the keys and values (or the one state) of the `history` latest equilibria,
/// which are computed once. With a causal cell these are the equilibria of the whole text, up to
/// the tolerance. An explicit network costs its levels instead of a solve; each level keeps its
/// own.
class TextGenerator {
 public:
  /// Throws deq::Error for a cell that is not causal. The model is put in evaluation mode.
  TextGenerator(LanguageModel& model, const EquilibriumOptions& equilibrium, int64_t history);

  /// Feeds tokens that are given, at least one in all before `next`.
  void feed(const std::vector<int64_t>& tokens);
  /// Draws the next token and feeds it.
  int64_t next(const SamplingOptions& options, at::Generator& generator);

  const at::Tensor& log_probabilities() const {
    return log_probabilities_;
  }  ///< (V,) of the next token
  const Histories& histories() const { return histories_; }
  const GenerationReport& report() const { return report_; }

 private:
  Report solve(const std::vector<int64_t>& tokens);

  LanguageModel& model_;
  ForwardOptions how_;
  Histories histories_;
  at::Tensor log_probabilities_;
  GenerationReport report_;
};

}  // namespace deq
