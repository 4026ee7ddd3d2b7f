#include "cli/verdict.h"

#include <cmath>

namespace deq::cli {
namespace {

/// Why an answer is not trusted.
std::string reason(const TrainedModel& run, const Trust& trust, const Answered& found) {
  if (run.model->is_explicit()) return "an explicit network has no residual";
  if (!std::isfinite(found.residual)) return "the state is not finite";
  std::string text = found.converged ? "" : "not converged, ";
  text += fmt::format("residual {:.1e}", found.residual);
  if (!trust.threshold) return text + ", no threshold";
  if (found.residual > *trust.threshold) text += fmt::format(" > {:.1e}", *trust.threshold);
  return text;
}

}  // namespace

Verdict judge_answer(const TrainedModel& run, const Trust& trust, const at::Tensor& problem,
                     const Answered& found) {
  Verdict verdict;
  verdict.check = run.options.task->check(problem, found.answer);
  verdict.trained_size = trust.was_trained_on(problem.sizes());
  verdict.trusted = trust.allows(found) && !verdict.invalid();
  if (verdict.invalid()) {
    verdict.text = "invalid: " + *verdict.check;
  } else {
    verdict.text = verdict.trusted ? "trusted" : "not trusted: " + reason(run, trust, found);
    if (verdict.check) verdict.text += "; checked: valid";
  }
  if (!verdict.trained_size) verdict.text += "; a size not trained on";
  return verdict;
}

std::string describe(const Trust& trust) {
  const int64_t within = trust.right_within + trust.wrong_within,
                beyond = trust.right_beyond + trust.wrong_beyond;
  if (!trust.threshold)
    return fmt::format(
        "no threshold, nothing is trusted: of {} problems of {} {} are right, but not 99.9% of the "
        "20 "
        "or more that converged within any residual",
        beyond, trust.split, trust.right_beyond);
  return fmt::format(
      "threshold {:.1e}: of {} problems of {} within it {} are right, of {} beyond {}",
      *trust.threshold, within, trust.split, trust.right_within, beyond, trust.right_beyond);
}

}  // namespace deq::cli
