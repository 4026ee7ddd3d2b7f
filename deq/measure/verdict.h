// Whether a solve that says it has converged has the right answer.
#pragma once

#include <cstdint>
#include <vector>

namespace deq {

/// Problems by what is said of their solves and what is true of their answers.
struct Verdicts {
  int64_t converged_right = 0;
  int64_t converged_wrong = 0;  ///< a fixed point that is no answer
  int64_t open_right = 0;       ///< not converged, right all the same
  int64_t open_wrong = 0;

  void add(bool converged, bool right) {
    ++(converged ? right ? converged_right : converged_wrong : right ? open_right : open_wrong);
  }
  int64_t count() const { return converged_right + converged_wrong + open_right + open_wrong; }
  int64_t right() const { return converged_right + open_right; }
};

/// The area under the ROC curve of "a small residual says right": how likely the residual of a
/// right answer is below that of a wrong one, ties counting half. 1: it tells them apart, 0.5: it
/// says nothing. What is not finite counts as the largest. NaN unless there are both.
double roc_area(const std::vector<double>& residuals, const std::vector<char>& right);

/// Of some numbers; NaN without any.
double median(std::vector<double> values);

}  // namespace deq
