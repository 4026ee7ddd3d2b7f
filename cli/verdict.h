// What is said of an answer: whether it is to be trusted, and why not.
#pragma once

#include <optional>
#include <string>

#include "deq/runs/trust.h"

namespace deq::cli {

inline constexpr int kNotTrusted = 3;  ///< exit code

/// Of one answer. What a check of the task finds wrong is never trusted, whatever the residual.
struct Verdict {
  bool trusted = false;
  bool trained_size = true;          ///< whether training problems were as small, and as large
  std::optional<std::string> check;  ///< what the task finds wrong; empty: nothing; none: no check
  std::string text;                  ///< for a person

  bool invalid() const { return check && !check->empty(); }
};
Verdict judge_answer(const TrainedModel& run, const Trust& trust, const at::Tensor& problem,
                     const Answered& found);

/// One line: the threshold, and on how many problems it stands.
std::string describe(const Trust& trust);

}  // namespace deq::cli
