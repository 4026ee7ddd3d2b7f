// Generation one token at a time: earlier equilibria are kept and never solved again.
#pragma once

#include <functional>

#include "deq/decode/cache.h"
#include "deq/decode/sampling.h"
#include "deq/models/language_model.h"

namespace deq {

/// What generating took, and whether it can be trusted.
struct GenerationReport {
  int64_t prompt_tokens = 0;
  int64_t tokens = 0;  ///< generated, of all texts
  int64_t prompt_evaluations = 0;
  double prompt_converged_share = 1;  ///< of the prompts' positions, least of what was fed
  /// Of f at the generated tokens, each counted for every token whose solve it was part of, however
  /// many texts it served at a time: evaluations / tokens are those of one token.
  int64_t evaluations = 0;
  int64_t converged = 0;  ///< generated tokens whose equilibrium converged
  double worst_residual = 0;
};

/// What is called for every token that is drawn; false: none is drawn any more.
using OnToken = std::function<bool(int64_t text, int64_t token)>;

/// Continues texts, side by side. Each new token costs one solve of one position against the keys
/// and values (or the one state) of the `history` latest equilibria, which are computed once. What
/// is given is solved in pieces of `length` positions, each behind the latest history + 1 - length
/// of those before: no position sees more than `history` others, and the pieces are the segments
/// that evaluation cuts a text into (with eval-length = length and eval-history = history + 1 -
/// length). With a causal cell these are the equilibria of the whole text, as far as it is seen and
/// up to the tolerance, and no text depends on the others. An explicit network costs its levels
/// instead of a solve; each level keeps its own.
class TextGenerator {
 public:
  /// `length` 0: what is given is solved at once, behind `history` positions. Throws deq::Error for
  /// a cell that is not causal, and for a length above history + 1. The model is put in evaluation
  /// mode.
  TextGenerator(LanguageModel& model, const EquilibriumOptions& equilibrium, int64_t history,
                int64_t texts = 1, int64_t length = 0);

  /// Feeds tokens that are given, in pieces: to each text at least one the first time, then any
  /// number. Texts that are fed unequal numbers are solved one after the other.
  void feed_all(const std::vector<std::vector<int64_t>>& tokens);
  /// Draws counts[i] tokens of text i, each from the text's own generator, and feeds them. A text
  /// whose equilibrium has converged takes its next token at the next evaluation of f, which serves
  /// all texts: none waits for another, and each has the tokens and equilibria, to the bit, that it
  /// has alone. (An explicit network, and a model on a GPU, takes a token of every text at a time.)
  /// `on_token` hears of a text's tokens in their order, before they are fed; when it says no,
  /// those that are drawn are still fed.
  void generate(const std::vector<int64_t>& counts, const SamplingOptions& options,
                std::vector<at::Generator>& generators, const OnToken& on_token);
  /// Draws the next token of every text, each from its own generator, and feeds it, all texts in
  /// one solve that lasts until the last of them has converged.
  std::vector<int64_t> next_all(const SamplingOptions& options,
                                std::vector<at::Generator>& generators);

  /// The same for a single text.
  void feed(const std::vector<int64_t>& tokens) { feed_all({tokens}); }
  int64_t next(const SamplingOptions& options, at::Generator& generator);

  /// (V,) of a text's next token.
  at::Tensor log_probabilities(int64_t text = 0) const { return cache_.log_probabilities[text]; }
  const EquilibriumCache& cache() const { return cache_; }
  /// Goes on from a cache of as many texts that this model has left; throws deq::Error for others.
  void restore(EquilibriumCache cache);
  const GenerationReport& report() const { return report_; }

 private:
  Report solve(EquilibriumCache& cache, const std::vector<std::vector<int64_t>>& tokens);
  class Batch;
  void check_generators(const std::vector<at::Generator>& generators) const;
  void generate_in_step(std::vector<int64_t> counts, const SamplingOptions& options,
                        std::vector<at::Generator>& generators, const OnToken& on_token);
  void count(const Report& report, int64_t texts);
  void saw(double residual);
  void solve_prompt(EquilibriumCache& cache, const std::vector<std::vector<int64_t>>& tokens);

  LanguageModel& model_;
  ForwardOptions how_;
  int64_t texts_;
  int64_t length_;
  EquilibriumCache cache_;
  GenerationReport report_;
};

}  // namespace deq
