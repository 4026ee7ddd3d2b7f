// A forecast as one HTML page that needs nothing else: no network, no scripts.
#pragma once

#include <string>
#include <vector>

namespace deq {

/// How every such page begins, so that nothing else is taken for one and replaced.
inline constexpr const char* kForecastPageStart = "<!doctype html>\n<!-- deq forecast -->\n";

/// One column of what is drawn, in the user's units. Row 0 is the first that is forecast.
struct DrawnColumn {
  std::string name;
  std::vector<double> before;  ///< known rows, the last of them row -1; NaN: missing
  std::vector<std::vector<double>> forecasts;  ///< of each quantile, or one
  std::vector<double> season;                  ///< the baseline
  std::vector<double> after = {};              ///< what came, where it is known; NaN: missing
};

/// A forecast to be drawn.
struct DrawnForecast {
  std::string title, note;
  std::vector<int64_t> percents;  ///< which quantiles; empty: one number
  std::vector<DrawnColumn> columns;
  std::vector<std::string> header;             ///< of the table below
  std::vector<std::vector<std::string>> rows;  ///< its cells
};

/// What comes from data is escaped.
std::string forecast_page(const DrawnForecast& drawn);

}  // namespace deq
