#include "deq/measure/sweep_page.h"

#include <fmt/format.h>

#include "deq/measure/sweep_charts.h"
#include "deq/measure/sweep_text.h"
#include "deq/report/page_frame.h"

namespace deq {
namespace {

std::string table_html(const SweepTable& table) {
  std::string out = "<h2>" + html(table.title) + "</h2>\n<p class=note>" + html(table.note) +
                    "</p>\n<div class=wide><table><tr>";
  for (const std::string& column : table.columns) out += "<th>" + html(column);
  for (const auto& row : table.rows) {
    out += "\n<tr>";
    for (size_t i = 0; i < row.size(); ++i) out += (i < 3 ? "<td>" : "<td class=n>") + html(row[i]);
  }
  return out + "\n</table></div>\n";
}

std::string charts_html(const std::vector<SweptRun>& runs) {
  std::string out =
      "<p class=note>Each run is a thin line and their mean a thick one. Circles are explicit "
      "networks, which have no limit, and runs that are done before the first one. A problem costs "
      "what its own solve took until it was done.</p>\n<div class=charts>\n";
  for (const Chart& chart : sweep_charts(runs)) out += line_chart(chart.series, chart.axes);
  return out + "</div>\n";
}

std::string pictures_html(const SweptRun& run) {
  std::string out;
  for (const SweptSet& set : run.sets) {
    if (set.pictures.empty()) continue;
    out += "<h3>" + html(set.name) + "</h3>\n";
    for (const ProblemPicture& picture : set.pictures) out += draw_problem(picture);
  }
  if (out.empty()) return "";
  return "<h2>Problems of " + html(run.name) +
         "</h2>\n<p class=note>Left: the answer at each square, green where it is right, red where "
         "it is wrong, small what was given. Right: the residual at each square, from red (1) to "
         "blue (1e-6). Move the slider along the solve.</p>\n" +
         out + picture_script();
}

}  // namespace

std::string sweep_page(const std::vector<SweptRun>& runs, const std::string& task) {
  std::string body = charts_html(runs);
  for (const SweptRun& run : runs) {
    const std::string pictures = pictures_html(run);
    body += pictures;
    if (!pictures.empty()) break;
  }
  for (const SweepTable& table : tables_of(runs)) body += table_html(table);
  return framed_page(kSweepPageStart, fmt::format("Sweep of {}", task), body);
}

}  // namespace deq
