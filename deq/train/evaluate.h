// The loss of a text under a model, never without the residual it was found at.
#pragma once

#include "deq/data/tasks.h"
#include "deq/train/options.h"

namespace deq {

struct Evaluation {
  int64_t tokens = 0;        ///< targets: all but the first of the text
  double loss = 0;           ///< mean, in nats
  double mean_residual = 0;  ///< over the rows of all solves
  double worst_residual = 0;
  double converged_share = 0;  ///< of positions; of samples' positions in scope `sample`
  double evaluations = 0;      ///< of f, mean over solves
  double seconds = 0;
};

/// Every token of `text` (N,) but the first is a target once; the result depends on lanes, length
/// and history, not on the batch. The model is put in evaluation mode for the call. `progress`
/// hears the share done.
Evaluation evaluate(LanguageModel& model, const at::Tensor& text,
                    const EquilibriumOptions& equilibrium, const EvaluationOptions& options,
                    const std::function<void(double)>& progress = {});

/// How far earlier positions of a segment's equilibrium move when only its last token changes: the
/// largest change of a position, relative to its norm. 0 where nothing of the future leaks. `text`
/// needs length + 1 tokens at least; several segments (`options.lanes`) are looked at.
double measure_leak(LanguageModel& model, const at::Tensor& text,
                    const EquilibriumOptions& equilibrium, const EvaluationOptions& options);

}  // namespace deq
