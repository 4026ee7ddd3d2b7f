// A small series in a file.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <string>

#include "deq/tasks/time_series.h"
#include "tests/base/scratch.h"

namespace deq::testing {

inline constexpr int64_t kRows = 200;  // 140 for training, 20 for validation, 40 for the test
inline constexpr double kTiny = 1e-9;  // of what levels round

/// Two seasons, a trend, and a second column on another scale; "" where a value is missing.
inline double value_at(int64_t row, int64_t column) {
  const double t = double(row);
  const double load = 500 + 0.3 * t + 40 * std::sin(t / 2) + 10 * std::cos(t * t);
  return column == 0 ? load : 1e-3 * std::sin(t / 5) + 0.01;
}
inline bool missing_at(int64_t row, int64_t column) { return (row * 7 + column * 3) % 23 == 5; }

using Value = std::function<double(int64_t row, int64_t column)>;

inline std::string csv(int64_t rows, const Value& value = value_at) {
  std::string text = "load,rate\n";
  for (int64_t t = 0; t < rows; ++t) {
    for (int64_t c = 0; c < 2; ++c)
      text += (c > 0 ? "," : "") + (missing_at(t, c) ? "" : fmt::format("{:.17g}", value(t, c)));
    text += '\n';
  }
  return text;
}

inline TimeSeries small() { return {.context = 12, .horizon = 4, .season = 3}; }

class SeriesTest : public ::testing::Test {
 protected:
  SeriesTest() { write(csv(kRows)); }
  void write(const std::string& text) { spill(scratch / "series.csv", text); }
  Corpus load(const TimeSeries& task = small()) { return task.load(scratch / "series.csv"); }
  std::string says(const TimeSeries& task = small()) {
    return error_of([&] { load(task); });
  }
  Scratch scratch;
};

/// Mean and standard deviation of the known values of the first `rows`, with a count of their own.
inline SeriesColumn scale_of(int64_t column, int64_t rows) {
  double sum = 0, squares = 0, count = 0;
  for (int64_t t = 0; t < rows; ++t) {
    if (missing_at(t, column)) continue;
    sum += value_at(t, column);
    ++count;
  }
  for (int64_t t = 0; t < rows; ++t)
    if (!missing_at(t, column)) squares += std::pow(value_at(t, column) - sum / count, 2);
  return {column == 0 ? "load" : "rate", sum / count, std::sqrt(squares / count)};
}

}  // namespace deq::testing
