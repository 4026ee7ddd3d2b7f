// `deq forecast RUN FILE`: the rows that follow a series, as CSV, and as a page.
#include "deq/train/forecast.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <fstream>

#include "cli/commands.h"
#include "cli/help.h"
#include "cli/options.h"
#include "cli/parse.h"
#include "cli/threads.h"
#include "deq/data/csv.h"
#include "deq/files/files.h"
#include "deq/files/folder_lock.h"
#include "deq/report/forecast_page.h"
#include "deq/runs/run.h"

namespace deq::cli {
namespace {

constexpr int64_t kMostRows = 1 << 20;  // as task-horizon

/// What the command line says besides options of the solve.
struct Arguments {
  std::string folder, file, checkpoint, device = "cpu", page;
  std::optional<int64_t> horizon;
  int64_t back = 0, threads = 0;
  Assignments flags;
};

/// A table in the scale of a run, and its last rows apart.
struct Given {
  std::vector<SeriesColumn> columns;
  SeriesTable table;
  at::Tensor known;  // (rows, C) scaled, without the last `back`
};

const TimeSeries& series_of(const TrainedModel& run) {
  const auto* task = run.options.task.get_if<TimeSeries>();
  DEQ_CHECK(task, "run '{}' is of task {}; expected one of task series", run.folder,
            task_name(run.options.task));
  return *task;
}

Given read_given(const TrainedModel& run, const TimeSeries& task, const Arguments& arguments) {
  Given given{.columns = series_columns(run.vocabulary)};
  TableRule rule{.time = task.time};
  for (const SeriesColumn& column : given.columns) rule.columns.push_back(column.name);
  given.table = read_table(std::filesystem::path(arguments.file), rule);
  const int64_t rows = given.table.values.size(0);
  DEQ_CHECK(rows >= task.context + arguments.back,
            "{}: {} rows; expected at least {}: task-context = {} of the run{}", given.table.source,
            rows, task.context + arguments.back, task.context,
            arguments.back > 0 ? fmt::format(" and --back {}", arguments.back) : "");
  given.known = scaled(given.table, given.columns).narrow(0, 0, rows - arguments.back);
  const int64_t last = rows - arguments.back, first = last - task.context;
  DEQ_CHECK(given.known.narrow(0, first, task.context).isfinite().any().item<bool>(),
            "{}: rows {} to {} ({} to {}) have no value in any column; expected one to forecast "
            "from",
            given.table.source, first + 1, last, given.table.clock.at(first),
            given.table.clock.at(last - 1));
  return given;
}

double in_units(const SeriesColumn& column, double scaled) {
  return scaled * column.std + column.mean;
}

/// In the user's units, to about 1e-5 of the column's standard deviation; "" of what is not finite.
std::string number(const SeriesColumn& column, double scaled) {
  const double value = in_units(column, scaled);
  if (!std::isfinite(value)) return "";
  const double over = std::abs(value) / column.std;
  const int digits = over < 1 ? 7 : int(std::clamp(std::floor(std::log10(over)) + 7, 7.0, 17.0));
  return fmt::format("{:.{}g}", value, digits);
}

/// Names of what a row holds.
std::vector<std::string> header_of(const Given& given, const Forecast& found) {
  std::vector<std::string> names{given.table.clock.known() ? "time" : "row"};
  for (const SeriesColumn& column : given.columns) {
    if (found.percents.empty()) names.push_back(column.name);
    for (const int64_t percent : found.percents)
      names.push_back(fmt::format("{} {}%", column.name, percent));
  }
  names.insert(names.end(), {"residual", "converged"});
  return names;
}

std::vector<std::vector<std::string>> rows_of(const Given& given, const Forecast& found) {
  std::vector<std::vector<std::string>> rows;
  for (int64_t t = 0; t < found.values.size(0); ++t) {
    auto& row = rows.emplace_back();
    row.push_back(given.table.clock.at(given.known.size(0) + t));
    for (int64_t c = 0; c < found.values.size(1); ++c) {
      for (int64_t q = 0; q < found.values.size(2); ++q)
        row.push_back(number(given.columns[size_t(c)], found.values[t][c][q].item<double>()));
    }
    row.push_back(found.residuals.empty() ? "" : fmt::format("{:.2e}", found.residuals[size_t(t)]));
    const bool good = found.converged[size_t(t)];
    row.push_back(!good ? "0" : found.residuals.empty() ? "" : "1");
  }
  return rows;
}

void print_csv(const std::vector<std::string>& header,
               const std::vector<std::vector<std::string>>& rows) {
  const auto line = [](const std::vector<std::string>& cells) {
    std::vector<std::string> written;
    for (const std::string& cell : cells) written.push_back(csv_cell(cell));
    fmt::print("{}\n", fmt::join(written, ","));
  };
  line(header);
  for (const auto& row : rows) line(row);
}

/// Rows of one column, in the user's units.
std::vector<double> drawn(const SeriesColumn& column, const at::Tensor& scaled) {
  std::vector<double> values;
  for (int64_t t = 0; t < scaled.size(0); ++t)
    values.push_back(in_units(column, scaled[t].item<double>()));
  return values;
}

DrawnForecast drawn(const Given& given, const TimeSeries& task, const Forecast& found,
                    const Arguments& arguments) {
  const int64_t known = given.known.size(0), rows = found.values.size(0);
  const int64_t shown = std::min(known, std::max(task.context, rows));
  const int64_t came = std::min(rows, arguments.back);
  const at::Tensor all = scaled(given.table, given.columns);
  DrawnForecast page{
      .title = fmt::format("Forecast of {}", arguments.file),
      .note = fmt::format(
          "{} rows after {}, by {}. {}.", rows, given.table.clock.at(known - 1), arguments.folder,
          !found.all_converged()    ? "NOT CONVERGED: rows marked 0 are not to be trusted"
          : found.residuals.empty() ? "An explicit network, which has no residual"
                                    : "Each solve has converged"),
      .percents = found.percents,
      .header = header_of(given, found),
      .rows = rows_of(given, found)};
  for (size_t c = 0; c < given.columns.size(); ++c) {
    const SeriesColumn& column = given.columns[c];
    const auto own = [&](const at::Tensor& values) { return values.select(1, int64_t(c)); };
    DrawnColumn& one = page.columns.emplace_back(
        DrawnColumn{.name = column.name,
                    .before = drawn(column, own(all.narrow(0, known - shown, shown))),
                    .forecasts = {},
                    .season = drawn(column, own(found.season)),
                    .after = came > 0 ? drawn(column, own(all.narrow(0, known, came)))
                                      : std::vector<double>{}});
    for (int64_t q = 0; q < found.values.size(2); ++q)
      one.forecasts.push_back(drawn(column, own(found.values).select(1, q)));
  }
  return page;
}

/// Only a page of ours is replaced.
void check_replaceable(const std::filesystem::path& page) {
  if (page.empty() || !std::filesystem::exists(page)) return;
  DEQ_CHECK(std::filesystem::is_regular_file(page), "--page '{}' is no file", page.string());
  std::ifstream file(page);
  std::string start(std::string_view(kForecastPageStart).size(), '\0');
  file.read(start.data(), std::streamsize(start.size()));
  DEQ_CHECK(start == kForecastPageStart,
            "--page '{}' exists and is no forecast; expected a new name", page.string());
}

void say(const Forecast& found, const TimeSeries& task) {
  if (found.solves > 1)
    fmt::print(
        stderr,
        "{} rows; the run was trained for {} (task-horizon): those behind are rolled on from "
        "{}\n",
        found.values.size(0), task.horizon,
        found.percents.empty() ? "what was forecast" : "medians");
  if (found.residuals.empty()) {
    if (!found.all_converged())
      fmt::print(stderr, "not finite, or far beyond what was read: not to be trusted\n");
    return;
  }
  fmt::print(stderr, "{}: residual {:.1e}, {} evaluations in {} solve{}\n",
             found.all_converged() ? "converged" : "not converged: not to be trusted",
             *std::max_element(found.residuals.begin(), found.residuals.end()), found.evaluations,
             found.solves, found.solves == 1 ? "" : "s");
}

void add_arguments(CLI::App& app, Arguments& arguments) {
  app.add_option("RUN", arguments.folder, "run folder")->required();
  app.add_option("FILE", arguments.file, "CSV with the run's columns; its last rows are read")
      ->required();
  app.add_option("--horizon", arguments.horizon,
                 "rows; more than the run was trained for are rolled on [the run's]");
  app.add_option("--back", arguments.back,
                 "forecast without the file's last so many rows, which the page shows beside [0]")
      ->check(CLI::Range(0, 1 << 30));
  app.add_option("--page", arguments.page, "draw it on an HTML page, which needs nothing else");
  app.add_option("--checkpoint", arguments.checkpoint, "best or last [best]");
  app.add_option("--threads", arguments.threads, "threads; 0: all cores")
      ->check(CLI::Range(0, 4096));
  app.add_option("--device", arguments.device, "cpu, cuda or cuda:N [cpu]");
  add_options(app, ForecastOptions{}, arguments.flags, Defaults::Hidden);
  use_short_help(app, {"horizon", "back", "page", "checkpoint", "solver", "max-steps", "rel-tol",
                       "threads", "device"});
  app.footer("Defaults are those of the run.");
}

}  // namespace

int forecast(int argc, char** argv) {
  CLI::App app(
      "Forecasts the rows that follow a series, by a run of task series, and prints them as CSV in "
      "the file's units. Exit code 3 where a solve has not converged, or a value is not finite.",
      "deq forecast");
  Arguments arguments;
  add_arguments(app, arguments);
  if (const auto code = parse(app, argc, argv)) return *code;
  use_threads(arguments.threads);

  if (arguments.horizon)
    DEQ_CHECK(*arguments.horizon >= 1 && *arguments.horizon <= kMostRows,
              "horizon = {}; expected 1 to {} rows", *arguments.horizon, kMostRows);
  check_replaceable(arguments.page);
  check_unlocked(arguments.folder);
  TrainedModel run = load_run(arguments.folder, arguments.checkpoint, arguments.device);
  const TimeSeries& task = series_of(run);
  ForecastOptions options{run.options.equilibrium, run.options.eval.subsequence};
  assign_options(options, arguments.flags);
  settle(options.equilibrium, run.options.model, arguments.flags);
  const Given given = read_given(run, task, arguments);
  const Forecast found = deq::forecast(*run.model, task, given.known,
                                       arguments.horizon.value_or(task.horizon), options);
  print_csv(header_of(given, found), rows_of(given, found));
  if (!arguments.page.empty())
    write_file(arguments.page, forecast_page(drawn(given, task, found, arguments)));
  say(found, task);
  return found.all_converged() ? 0 : 3;
}

}  // namespace deq::cli
