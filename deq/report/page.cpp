#include "deq/report/page.h"

#include <fmt/format.h>

#include <cmath>
#include <functional>
#include <set>

#include "deq/report/chart.h"
#include "deq/report/page_frame.h"

namespace deq {
namespace {

using Value = std::function<double(const MetricsLine&)>;
using Wanted = std::function<bool(const MetricsLine&)>;

bool is_training(const MetricsLine& line) {
  return line.kind == "train" || line.kind == "pretrain";
}
bool is_validation(const MetricsLine& line) { return line.kind == "valid"; }
Value field(const std::string& name) {
  return [name](const MetricsLine& line) { return line.at(name); };
}

/// One line for each run.
std::string chart(const std::vector<ReportedRun>& runs, const Axes& axes, const Wanted& wanted,
                  const Value& y) {
  std::vector<Series> series;
  for (const ReportedRun& run : runs) {
    Series& one = series.emplace_back(Series{run.record.name, {}});
    for (const MetricsLine& line : run.record.lines) {
      if (!wanted(line)) continue;
      one.points.emplace_back(axes.x == "minutes" ? line.minutes : double(line.step), y(line));
    }
  }
  return line_chart(series, axes);
}

/// MAE of runs that forecast real values, and of the value a season ago.
std::string value_chart(const std::vector<ReportedRun>& runs) {
  std::vector<Series> series;
  for (size_t i = 0; i < runs.size(); ++i) {
    Series own{runs[i].record.name, {}, i}, season{"a season ago", {}, i, Stroke::Thin};
    for (const MetricsLine& line : runs[i].record.lines) {
      if (!is_validation(line)) continue;
      own.points.emplace_back(double(line.step), line.at("mae"));
      season.points.emplace_back(double(line.step), line.at("season_mae"));
    }
    series.insert(series.end(), {own, season});
  }
  return line_chart(series, {"MAE, validation", "steps", "thin: a season ago"});
}

std::string training_charts(const std::vector<ReportedRun>& runs) {
  const std::string& metric = runs.front().record.metric;
  std::string out = "<div class=charts>\n";
  for (const char* x : {"steps", "minutes"}) {
    out += chart(runs, {"Training loss", x, "nats"}, is_training, field("loss"));
    out += chart(runs, {"Validation", x, metric}, is_validation, field(metric));
  }
  const auto add = [&](const char* title, const char* y, const char* name, bool logarithmic) {
    out += chart(runs, {title, "steps", y, logarithmic}, is_training, field(name));
  };
  add("Evaluations, forward", "of f, for each solve", "evaluations", false);
  add("Evaluations, backward", "vector-Jacobian products, for each solve", "adjoint_evaluations",
      false);
  add("Residual, forward", "|f(z) - z| / |f(z)|, mean over positions", "residual", true);
  add("Residual, backward", "of the adjoint, mean over positions", "adjoint_residual", true);
  add("Converged, forward", "share of positions", "converged_share", false);
  add("Converged, backward", "share of rows", "adjoint_converged_share", false);
  out += chart(runs, {"Residual, validation", "steps", "mean over positions", true}, is_validation,
               field("residual"));
  out += chart(runs, {"Answered exactly", "steps", "share of the validation's sequences"},
               is_validation, field("exact_share"));
  out += value_chart(runs);
  add("Jacobian", "|J|² / n, on the steps that estimate it", "jacobian", false);
  add("Norm of the gradient", "before it is clipped", "gradient_norm", true);
  add("Speed", "tokens per second", "tokens_per_second", false);
  add("Memory", "MB, the process at its peak", "peak_mb", false);
  return out + "</div>\n<p class=note>" + kAveraged + "</p>\n";
}

std::string cell(double value, const char* format = "{:.4g}") {
  return std::isfinite(value)
             ? fmt::format("<td class=n>{}", fmt::format(fmt::runtime(format), value))
             : "<td class=n>–";
}

/// Over the steps of training that solved for one; NaN where none did.
double adjoint_converged(const RunRecord& run) {
  double sum = 0;
  int64_t count = 0;
  for (const MetricsLine& line : run.lines) {
    const double share = line.at("adjoint_converged_share");
    if (!std::isfinite(share)) continue;
    sum += share;
    ++count;
  }
  return count > 0 ? sum / double(count) : NAN;
}

std::string summary(const std::vector<ReportedRun>& runs) {
  const std::string& metric = runs.front().record.metric;
  std::string out = fmt::format(
      "<div class=wide><table><tr><th>run<th>best validation, {0}<th>at step<th>test, {0}"
      "<th>parameters<th>residual<th>converged<th>evaluations<th>adjoint converged<th>steps"
      "<th>minutes<th>peak MB\n",
      html(metric));
  for (const ReportedRun& run : runs) {
    const MetricsLine *best = run.record.best_validation(), *test = run.record.test();
    const MetricsLine* judged = test ? test : best;
    const auto of = [](const MetricsLine* line, const std::string& name) {
      return line ? line->at(name) : NAN;
    };
    double peak = NAN;
    for (const MetricsLine& line : run.record.lines) peak = std::fmax(peak, line.at("peak_mb"));
    out += "<tr><td>" + html(run.record.name) + cell(of(best, metric)) +
           cell(best ? double(best->step) : NAN, "{:.0f}") + cell(of(test, metric)) +
           cell(run.parameters > 0 ? double(run.parameters) : NAN, "{:.0f}") +
           cell(of(judged, "residual"), "{:.2g}") +
           cell(100 * of(judged, "converged_share"), "{:.2f}%") + cell(of(judged, "evaluations")) +
           cell(100 * adjoint_converged(run.record), "{:.2f}%") +
           cell(double(run.record.latest().step), "{:.0f}") +
           cell(run.record.latest().minutes, "{:.1f}") + cell(peak, "{:.0f}") + "\n";
  }
  out +=
      "</table></div><p class=note>Residual, share of converged positions and evaluations "
      "are those of the test, or of the best validation where there was no test; the adjoint's "
      "share of rows is the mean over training: of the others the gradient misses more than its "
      "tolerance says.</p>\n";
  std::set<std::string> vocabularies;
  for (const ReportedRun& run : runs) vocabularies.insert(run.record.vocabulary);
  if (vocabularies.size() > 1)
    out += "<p class=note><b>The runs have different vocabularies: " + html(metric) +
           " and loss of one say nothing beside those of another.</b></p>\n";
  return out;
}

/// Of runs that forecast real values: scores on the test, or the best validation, beside those of
/// the value a season ago; "" where none does.
std::string value_scores(const std::vector<ReportedRun>& runs) {
  std::string rows;
  for (const ReportedRun& run : runs) {
    const MetricsLine *test = run.record.test(),
                      *judged = test ? test : run.record.best_validation();
    if (!judged || std::isnan(judged->at("mae"))) continue;
    rows += "<tr><td>" + html(run.record.name) + (test ? "<td>test" : "<td>validation");
    for (const char* name :
         {"mae", "season_mae", "rmse", "season_rmse", "pinball", "season_pinball", "relative_mae"})
      rows += cell(judged->at(name));
    for (const char* name : {"inside_80", "inside_90", "crossed"})
      rows += cell(100 * judged->at(name), "{:.1f}%");
    rows += "\n";
  }
  if (rows.empty()) return "";
  return "<h2>Forecasts</h2>\n<div class=wide><table><tr><th>run<th>split<th>MAE<th>MAE, a season "
         "ago<th>RMSE<th>RMSE, a season ago<th>pinball<th>pinball, a season ago<th>MAE / a season "
         "ago<th>inside 80%<th>inside 90%<th>crossed\n" +
         rows +
         "</table></div><p class=note>In the units of the data. A season ago: the value so many "
         "whole seasons (task-season) before that it was known. Inside: the share of values "
         "between "
         "the quantiles 10 and 90, 5 and 95. Crossed: forecasts whose quantiles were not in "
         "order.</p>\n";
}

std::string configuration(const std::vector<ReportedRun>& runs) {
  std::set<std::string> keys;
  for (const ReportedRun& run : runs)
    for (const auto& [key, value] : run.record.configuration) keys.insert(key);
  std::string head = "<tr><th>option", differing, shared;
  for (const ReportedRun& run : runs) head += "<th>" + html(run.record.name);
  for (const std::string& key : keys) {
    std::string row = "<tr><td>" + html(key);
    std::set<std::string> values;
    for (const ReportedRun& run : runs) {
      const auto found = run.record.configuration.find(key);
      values.insert(found == run.record.configuration.end() ? "–" : found->second);
      row += "<td>" + html(found == run.record.configuration.end() ? "–" : found->second);
    }
    (values.size() > 1 ? differing : shared) += row + "\n";
  }
  std::string out;
  if (!differing.empty())
    out += "<p>Where the configurations differ:</p><div class=wide><table>" + head + "\n" +
           differing + "</table></div>\n";
  return out + "<details" + (runs.size() == 1 ? " open" : "") + "><summary>" +
         (runs.size() == 1 ? "Every option" : "Options that are the same in all runs") +
         "</summary><div class=wide><table>" + head + "\n" + shared + "</table></div></details>\n";
}

std::string heat_map(const std::vector<Passage::Position>& sample, int64_t most, bool spaced) {
  std::string out = "<div class=heat>";
  for (const Passage::Position& at : sample) {
    const bool breaks = at.token == "\n" || at.token == kEndOfLine;
    out += fmt::format("<span{} style='--h:{:.2f}' title='{} steps{}'>{}</span>{}",
                       at.converged ? "" : " class=open", double(at.steps) / double(most), at.steps,
                       at.converged ? "" : ", not converged", breaks ? "⏎" : html(at.token),
                       breaks   ? "\n"
                       : spaced ? " "
                                : "");
  }
  return out + "</div>\n";
}

std::string solves(const ReportedRun& run) {
  std::string out = "<h2>Solves of " + html(run.record.name) + "</h2>\n";
  if (!run.passage) return out + "<p class=note>Left out: " + html(run.no_passage) + "</p>\n";
  const Passage& passage = *run.passage;
  std::vector<Series> series;
  for (size_t b = 0; b < passage.traces.size(); ++b) {
    Series& one = series.emplace_back(Series{fmt::format("sample {}", b + 1), {}});
    for (size_t s = 0; s < passage.traces[b].size(); ++s)
      one.points.emplace_back(double(s + 1), passage.traces[b][s]);
  }
  out += "<div class=charts>" +
         line_chart(series, {"Residual", "evaluations", "median over a sample's positions", true});
  out += fmt::format(
      "<div><p>Steps until each position was done, of {} at most, to a relative residual of "
      "{:g}{}{}: "
      "blue few, red many. Framed: not converged.</p>",
      passage.max_steps, passage.rel_tol,
      passage.part > 0 ? fmt::format(", {} at a time", passage.part) : "",
      passage.history > 0 ? fmt::format(", behind {} of history", passage.history) : "");
  int64_t most = 1;
  for (const auto& sample : passage.samples)
    for (const Passage::Position& at : sample) most = std::max(most, at.steps);
  for (const auto& sample : passage.samples) out += heat_map(sample, most, passage.spaced);
  return out + "</div></div>\n";
}

std::string memory(const ReportedRun& run) {
  const std::string table = draw_memory(run.memory);
  if (table.empty()) return "";
  return "<h2>Memory of " + html(run.record.name) +
         "</h2>\n<p>The first problem of the validation split, from left to right: the slot "
         "at which each head stood, or what each stack did.</p>\n" +
         table;
}

}  // namespace

std::string report_page(const std::vector<ReportedRun>& runs) {
  std::string title;
  for (const ReportedRun& run : runs) title += (title.empty() ? "" : ", ") + run.record.name;
  std::string out =
      summary(runs) + value_scores(runs) + "<h2>Training</h2>\n" + training_charts(runs);
  for (const ReportedRun& run : runs) {
    if (run.passage || !run.no_passage.empty()) out += solves(run);
    out += memory(run);
  }
  return framed_page(kPageStart, title, out + "<h2>Configuration</h2>\n" + configuration(runs));
}

}  // namespace deq
