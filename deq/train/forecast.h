// The values that follow a series, and how far to trust them.
#pragma once

#include <vector>

#include "deq/models/model.h"
#include "deq/tasks/time_series.h"

namespace deq {

/// How a forecast is solved.
struct ForecastOptions {
  EquilibriumOptions equilibrium;
  int64_t subsequence = 0;

  static void fields(auto& self, auto&& field) {
    EquilibriumOptions::solve_fields(self.equilibrium, field);
    field("eval_subsequence", self.subsequence, "positions solved at a time; 0: all",
          between(0, 1 << 20));
  }
};

/// Rows that follow.
struct Forecast {
  at::Tensor values;  ///< (rows, columns, n) double, in the scale of what was given, rising in n
  at::Tensor season;  ///< (rows, columns): the baseline
  std::vector<int64_t> percents = {};  ///< which quantiles they are; empty: n is 1
  /// Of each row that of its solve, the largest of its places; infinite where one is not finite.
  /// Empty: an explicit network, which has none.
  std::vector<double> residuals = {};
  /// Each row's solve; of an explicit network, whether what it says can be used (see below).
  std::vector<bool> converged = {};
  int64_t solves = 0, evaluations = 0;

  bool all_converged() const;
};

/// `rows` rows that follow `values` (T, columns) double, in standard deviations of the run's
/// training part, NaN where one is missing; the last `task.context` of them are read. A solve gives
/// `task.horizon` rows; for more, their medians (or the one number that is answered) are taken for
/// known and the rows after them are solved for. A solve with a value that is not finite, or more
/// than 2^27 standard deviations away, counts as not converged, and nothing is rolled on from it:
/// what would follow is NaN, with infinite residuals. No tape. Throws deq::Error for fewer than
/// `task.context` rows, for rows < 1, and for a model in training mode.
Forecast forecast(Model& model, const TimeSeries& task, const at::Tensor& values, int64_t rows,
                  const ForecastOptions& options);

}  // namespace deq
