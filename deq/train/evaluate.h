#pragma once

#include "deq/tasks/tasks.h"
#include "deq/train/options.h"
#include "deq/train/shards.h"

namespace deq {

/// The loss of a split under a model, never without the residual it was found at.
struct Evaluation {
  int64_t tokens = 0;        ///< targets that are scored: all but the first token of a text
  double loss = 0;           ///< mean, in nats
  double mean_residual = 0;  ///< over the rows of all solves
  double worst_residual = 0;
  double converged_share = 0;  ///< of positions; of samples' positions in scope `sample`
  int64_t unconverged = 0;     ///< rows of the solves that did not converge
  double evaluations = 0;      ///< of f, mean over solves
  int64_t depth = 0;  ///< levels of an explicit network, which has no residual; 0: equilibria
  std::string halting = "";  ///< the rule by which problems halted; "": none
  double halting_steps = 0;  ///< evaluations of f on one problem until it halted, mean
  double halted_share = 0;   ///< of problems; the others' steps ran out
  double seconds = 0;
  int64_t answer = 0;      ///< positions of each that hold its answer, or kEveryPosition; 0: none
  double answer_loss = 0;  ///< mean over their targets, in nats
  double right_share = 0;  ///< of these targets: it was the likeliest token
  double exact_share = 0;  ///< of sequences: each target of the answer was the likeliest token
  std::vector<ScoreRow> scores = {};  ///< of real values, of which `loss` is no likelihood
  std::string scores_text = {};       ///< those of all in a line; empty: there are none
};

/// Where the model has a halting rule, problems halt by it, and residuals and verdicts are those of
/// the states that they are left in (halted.h).
///
/// Every target of `split` once: of a text every token but the first, and the result depends on
/// lanes, length and history; of sequences all that are scored, each sequence solved as a whole.
/// Neither depends on the batch. The model is put in evaluation mode for the call. `progress` hears
/// the share done. Of several `shards` each solves its rows of a batch alone; what is added up are
/// the losses of the whole batch, in the order of rows, and all processes get the result.
Evaluation evaluate(Model& model, const Split& split, const EquilibriumOptions& equilibrium,
                    const EvaluationOptions& options,
                    const std::function<void(double)>& progress = {}, const Shards& shards = {});

/// The loss of some positions after a beginning. Position p is predicted from the p tokens that the
/// text begins with.
struct BeginningLoss {
  int64_t first = 1, last = 1;  ///< positions, both included
  double loss = 0;              ///< mean, in nats
};

/// The mean loss of position 1, of 2 to 8, 9 to 32 and 33 to `length` of texts that begin at
/// `count` places of a split, evenly spaced, without history; groups beyond `length` are left out.
/// No number depends on the batch. The model is put in evaluation mode for the call. Throws
/// deq::Error for sequences, and for a text of length tokens or fewer.
std::vector<BeginningLoss> measure_beginnings(Model& model, const Split& split,
                                              const EquilibriumOptions& equilibrium,
                                              const EvaluationOptions& options, int64_t count);

/// The first segments of a split, to be looked at more closely.
struct KnownSegments {
  at::Tensor tokens, targets;  ///< (S, T) each; a target is -1 where none is scored
  Histories histories;         ///< what stands before them; none of sequences
};

/// The first `count` segments of `length` positions, or the first sequences as they are; fewer
/// where there are no more. Before each segment of a text stand the states of the `length`
/// positions before it, found as `how` says. No tape; the model is in the mode it is in. Throws
/// deq::Error for a text that is shorter than one such segment.
KnownSegments first_segments(Model& model, const Split& split, int64_t count, int64_t length,
                             const ForwardOptions& how);

/// How far earlier positions of a segment's equilibrium move when only its last token changes: the
/// largest change of a position, relative to its norm. 0 where nothing of the future leaks. Several
/// segments (`options.lanes`) are looked at: sequences as they are, or parts of a text, which needs
/// length tokens at least. NaN where a state is not finite or zero.
double measure_leak(Model& model, const Split& split, const EquilibriumOptions& equilibrium,
                    const EvaluationOptions& options);

}  // namespace deq
