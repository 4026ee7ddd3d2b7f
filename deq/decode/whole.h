// A text that goes on although its states depend on what follows them: all of it is solved again
// for each character, from where it stood.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "deq/layers/equilibrium.h"
#include "deq/models/model.h"

namespace deq {

/// How a text is solved again.
struct WholeOptions {
  int64_t hole = 0;    ///< the input that stands for a character that is not known
  int64_t length = 2;  ///< positions that are solved at most: the latest ones, and a hole
  bool warm = true;    ///< from the states of the solve before; false: from the start
};

/// What its solves took.
struct WholeReport {
  int64_t solves = 0, converged = 0;
  int64_t evaluations = 0;    ///< of f, at all positions each
  int64_t positions = 0;      ///< of all solves
  double worst_residual = 0;  ///< infinite where one is not finite, and of an explicit network
};

/// By a model of task masked: a hole is put behind what is known of the text, and its answer is the
/// next character. Nothing that follows is ever an input. A causal cell gives what it gives at the
/// hole by a cache (generator.h) as well; any other cell has nothing to keep but a start.
class WholeText {
 public:
  /// Throws deq::Error for a length below 2, a hole that is no input, and a model in training mode.
  WholeText(Model& model, const EquilibriumOptions& equilibrium, const WholeOptions& options);

  /// Known inputs, behind those before.
  void feed(const std::vector<int64_t>& inputs);

  /// log p of every answer for the character behind what was fed, (answers), doubles on the CPU.
  /// One solve; no tape.
  at::Tensor next();

  const WholeReport& report() const { return report_; }

 private:
  at::Tensor start(int64_t first, int64_t count) const;

  Model& model_;
  ForwardOptions how_;
  WholeOptions options_;
  WholeReport report_;
  std::vector<int64_t> text_;
  at::Tensor z_;       // (1, n, D) of the solve before
  int64_t first_ = 0;  // position of the text that its first state is of
};

}  // namespace deq
