#pragma once

#include "deq/data/corpus.h"
#include "deq/data/series_table.h"
#include "deq/tasks/series_scores.h"
#include "deq/tasks/written.h"

namespace deq {

/// From what the values of a window are counted.
enum class Centre {
  Mean,  ///< the mean of its context's known values, column by column (so that a trend may go on)
  Last,  ///< the last of them (NLinear: Zeng et al. 2023)
  None   ///< the mean of the training part
};
template <>
struct Names<Centre> {
  static constexpr const char* values[] = {"mean", "last", "none"};
};

/// Real values, several columns side by side, and the values that follow: windows of `context` rows
/// that are known, and `horizon` rows that are asked.
///
/// `data` is a CSV file (series_table.h), cut in time order: its first rows are for training, its
/// last for the test, those before for validation. Each column is scaled by mean and standard
/// deviation of the training part. Missing values may stand anywhere; they are not scored. A window
/// of a later part may look back into the part before it; no window sees what is asked of it.
///
/// A window is tokens (context + horizon, columns), ids as of base/levels.h, in standard deviations
/// from its `centre`; targets are -1 in the context and where a value is missing.
struct TimeSeries {
  static constexpr const char* name = "series";
  static constexpr Unit unit = Unit::Value;
  std::string columns;
  std::string time;
  int64_t context = 96;
  int64_t horizon = 24;
  int64_t season = 1;
  Centre centre = Centre::Mean;
  int64_t windows = 4096;
  int64_t stride = 0;
  int64_t seed = 1;
  SplitShares shares{.valid = 0.1, .test = 0.2};

  static void fields(auto& self, auto&& field) {
    field("columns", self.columns, "which are read and forecast, NAME,NAME,...; all but the times");
    field("time", self.time, "column of times; none: there is none; found where it is not named");
    field("context", self.context, "rows that are known", between(1, 1 << 20));
    field("horizon", self.horizon, "rows that are forecast", between(1, 1 << 20));
    field("season", self.season,
          "rows of a season, for the baseline: the value a season ago; 1: the last value",
          between(1, 1 << 20));
    field("centre", self.centre, "from what a window's values are counted");
    field("windows", self.windows, "of training, drawn anew in each epoch; 0: each that there is",
          between(0, 1 << 24));
    field(
        "stride", self.stride,
        "rows from a window of validation or test to the next; 0: the horizon, so that each value "
        "is scored once",
        between(0, 1 << 20));
    field("seed", self.seed, "of the windows that are drawn", at_least(0));
    field("", self.shares);
  }

  std::string reading() const { return "series"; }
  int64_t known_vocabulary() const { return 0; }
  /// Throws deq::Error for what `read_table` refuses, for parts with too few rows for a window, for
  /// a season longer than the context, for a column whose training part is constant or empty or has
  /// a standard deviation outside 1e-100 to 1e100, and for a value more than 2^27 of them away.
  Corpus load(const std::filesystem::path& data) const;
  /// With the columns and the scale of a run, for evaluating.
  Corpus load(const std::filesystem::path& data, const Vocabulary& vocabulary) const;

  /// Throws deq::Error: `deq forecast` reads series.
  std::vector<WrittenProblem> read_text(const std::string& text, const std::string& source,
                                        const Vocabulary& inputs) const;
  /// Places (rows) of scaled values, "." where one is missing and "?" where it is asked.
  std::string show(const Shown& shown) const;
};

/// The vocabulary of a series: the marks, and its columns with their scale, as vocab.txt has them.
Vocabulary series_vocabulary(const std::vector<SeriesColumn>& columns);
/// Throws deq::Error for a vocabulary of something else.
std::vector<SeriesColumn> series_columns(const Vocabulary& vocabulary);

/// A table's values in standard deviations, (rows, columns) double. Throws deq::Error for values
/// that are too far away.
at::Tensor scaled(const SeriesTable& table, const std::vector<SeriesColumn>& columns);

/// A window's known rows and what they are counted from.
struct Context {
  at::Tensor ids;     ///< (T, C) int64
  at::Tensor centre;  ///< (C) double
};
/// Of scaled values (T, C); NaN: missing.
Context context_of(const at::Tensor& values, Centre centre);

}  // namespace deq
