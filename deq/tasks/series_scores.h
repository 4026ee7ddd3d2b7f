// Forecasts against what came, and against what stood there a season ago, in the user's units.
#pragma once

#include "deq/data/scoring.h"

namespace deq {

/// A column of a series and the scale that the training part gave it.
struct SeriesColumn {
  std::string name;
  double mean = 0;
  double std = 1;  ///< of the population
};

/// The baseline of each place of `ids` (B, T, C): the value as many whole seasons of `season` rows
/// before it as lead to one that is known; or else the mean of its column's known values; or else
/// 0. Double; where a place is not asked, 0.
at::Tensor season_ago(const at::Tensor& ids, int64_t season);

/// Forecasts of series, (B, T, C). Of each column and of all: `values` scored, MAE and RMSE; of
/// quantiles the pinball loss, the share of values inside the intervals of 80% (quantiles 10 and
/// 90) and 90% (5 and 95) where these are answered, and the share of forecasts whose quantiles
/// cross (before they are sorted, as they are for the other numbers: Chernozhukov et al. 2010).
/// What begins with `season_` is the baseline's; it is scored where the forecast is. The MAE and
/// the RMSE are of the median, or of the one number that is answered. Of all: the mean over values,
/// whatever their columns; `relative_mae` is the mean over columns of MAE / season_mae.
class SeriesScoring final : public Scoring {
 public:
  SeriesScoring(std::vector<SeriesColumn> columns, int64_t season)
      : columns_(std::move(columns)), season_(season) {}

  at::Tensor of_problems(const RealAnswers& answers, const Batch& batch) const override;
  std::vector<ScoreRow> rows(const at::Tensor& sums,
                             const std::vector<int64_t>& percents) const override;
  std::string text(const std::vector<ScoreRow>& rows) const override;

 private:
  std::vector<SeriesColumn> columns_;
  int64_t season_;
};

}  // namespace deq
