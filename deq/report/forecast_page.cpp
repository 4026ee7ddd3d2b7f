#include "deq/report/forecast_page.h"

#include <fmt/format.h>

#include <cmath>

#include "deq/report/chart.h"
#include "deq/report/page_frame.h"

namespace deq {
namespace {

constexpr size_t kKnown = 0, kForecast = 1, kSeason = 2, kAfter = 3;  // colours

/// Of values at rows from `first` on; the chart leaves out what is missing.
std::vector<std::pair<double, double>> points(const std::vector<double>& values, int64_t first) {
  std::vector<std::pair<double, double>> found;
  for (size_t i = 0; i < values.size(); ++i)
    found.emplace_back(double(first + int64_t(i)), values[i]);
  return found;
}

std::string chart_of(const DrawnForecast& drawn, const DrawnColumn& column) {
  std::vector<Series> lines{
      {"known", points(column.before, -int64_t(column.before.size())), kKnown}};
  if (!column.after.empty()) lines.push_back({"what came", points(column.after, 0), kAfter});
  lines.push_back({"a season ago", points(column.season, 0), kSeason});
  for (size_t q = 0; q < column.forecasts.size(); ++q) {
    const bool middle = drawn.percents.empty() || drawn.percents[q] == 50;
    const std::string name = drawn.percents.empty() ? "forecast" : "forecast, median";
    lines.push_back({middle ? name : fmt::format("{}%", drawn.percents[q]),
                     points(column.forecasts[q], 0), kForecast,
                     middle ? Stroke::Thick : Stroke::Thin});
  }
  return line_chart(lines, {.title = column.name,
                            .x = "rows; 0 is the first that is forecast",
                            .y = "",
                            .marks = {{-0.5, "forecast"}}});
}

std::string table_of(const DrawnForecast& drawn) {
  std::string out = "<h2>Rows</h2>\n<div class=wide><table><tr>";
  for (const std::string& name : drawn.header) out += "<th>" + html(name);
  for (const auto& row : drawn.rows) {
    out += "\n<tr>";
    for (const std::string& cell : row) out += "<td class=n>" + html(cell);
  }
  return out + "\n</table></div>\n";
}

std::string interval_note(const std::vector<int64_t>& percents) {
  if (percents.size() < 2) return "";
  std::vector<std::string> names;
  for (const int64_t percent : percents) names.push_back(std::to_string(percent));
  return fmt::format("Thin lines are the quantiles {}%.", fmt::join(names, ", "));
}

}  // namespace

std::string forecast_page(const DrawnForecast& drawn) {
  std::string body = "<p class=note>" + html(drawn.note) + " " + interval_note(drawn.percents) +
                     "</p>\n<div class=charts>\n";
  for (const DrawnColumn& column : drawn.columns) body += chart_of(drawn, column);
  return framed_page(kForecastPageStart, drawn.title, body + "</div>\n" + table_of(drawn));
}

}  // namespace deq
