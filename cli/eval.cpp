// `deq eval RUN`: the loss of a text under a trained model, with the residual it was found at.

#include <cmath>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/help.h"
#include "cli/options.h"
#include "cli/parse.h"
#include "cli/progress.h"
#include "cli/scores.h"
#include "cli/threads.h"
#include "deq/runs/metrics.h"
#include "deq/runs/run.h"
#include "deq/runs/split.h"

namespace deq::cli {
namespace {

/// What may differ from the run's own options: how it is solved and how the text is cut.
struct EvalOptions {
  EquilibriumOptions equilibrium;
  EvaluationOptions eval;
  ReadingOptions reading;
  Task task;
  Halting halting;

  static void fields(auto& self, auto&& field) {
    EquilibriumOptions::solve_fields(self.equilibrium, field);
    field("eval", self.eval);
    field("", self.reading);
    field("task", self.task, "the run's, with other options: sizes, seeds, numbers of problems");
    field("halting", self.halting, "rule by which a problem's plain steps end");
  }
};

/// A table of the scores of parts: a row for each, a column for each number.
void print_parts(const std::vector<ScoreRow>& scores) {
  size_t width = 6;
  for (const ScoreRow& row : scores) width = std::max(width, row.name.size());
  fmt::print("{:<{}}", "column", width);
  const auto& names = scores.back().numbers;
  for (const auto& [name, value] : names) fmt::print("  {:>14}", name);
  fmt::print("\n");
  for (const ScoreRow& row : scores) {
    if (row.name.empty()) continue;
    fmt::print("{:<{}}", row.name, width);
    for (const auto& [name, value] : row.numbers) fmt::print("  {:>14.4g}", value);
    fmt::print("\n");
  }
}

void print_result(const Evaluation& e, const TrainedModel& run, const std::string& split) {
  const Task& task = run.options.task;
  if (e.answer != 0 || !e.scores_text.empty()) {
    fmt::print("{}: {}  ({} {}s)\n", split, answer_text(e), e.tokens, unit_name(task));
  } else {
    fmt::print("{}: {} {:.6g}  (loss {:.6f} nats over {} {}s)\n", split, metric_name(task),
               metric_value(task, e.loss), e.loss, e.tokens, unit_name(task));
  }
  if (e.scores.size() > 2) print_parts(e.scores);
  fmt::print("{}{}; {:.0f} {}s/s\n", solve_text(e), weight_type_text(*run.model),
             double(e.tokens) / e.seconds, unit_name(task));
}

std::string positions_text(const BeginningLoss& group) {
  return group.first == group.last ? fmt::format("{}", group.first)
                                   : fmt::format("{}-{}", group.first, group.last);
}

void print_beginnings(const std::vector<BeginningLoss>& groups, const Task& task, int64_t count) {
  std::vector<std::string> parts;
  for (const BeginningLoss& group : groups)
    parts.push_back(
        fmt::format("{:.4g} at {}", metric_value(task, group.loss), positions_text(group)));
  fmt::print("beginnings: {} {} of {} texts without history\n", metric_name(task),
             fmt::join(parts, ", "), count);
}

nlohmann::ordered_json rows_of(const std::vector<BeginningLoss>& groups) {
  auto rows = nlohmann::ordered_json::array();
  for (const BeginningLoss& group : groups) {
    rows.push_back({{"first", group.first}, {"last", group.last}, {"loss", nullptr}});
    if (std::isfinite(group.loss)) rows.back()["loss"] = group.loss;
  }
  return rows;
}

}  // namespace

int eval(int argc, char** argv) {
  CLI::App app(
      "Evaluates a trained model. Solver, step limit, tolerance and history can be changed here.",
      "deq eval");
  std::string folder, data, split = "test", checkpoint, device = "cpu";
  bool leak = false, require_converged = false, json = false;
  int64_t threads = 0, beginnings = 0;
  Assignments flags;
  app.add_option("RUN", folder, "run folder")->required();
  app.add_option("--data", data, "text, in place of the run's");
  app.add_option("--split", split,
                 "train, valid or test; all: the whole of the file --data [test]");
  app.add_option("--checkpoint", checkpoint, "best or last [best]");
  app.add_option("--threads", threads, "threads; 0: all cores")->check(CLI::Range(0, 4096));
  app.add_option("--device", device, "cpu, cuda or cuda:N [cpu]");
  app.add_flag("--check-leak", leak,
               "measure how far earlier positions move when only the last token changes");
  app.add_option(
         "--beginnings", beginnings,
         "show the loss of the first positions of texts that begin at so many places of the "
         "split, without history")
      ->check(CLI::Range(1, 1 << 30));
  app.add_flag("--require-converged", require_converged,
               "exit code 1 unless every position converged");
  app.add_flag("--json", json, "print one JSON object");
  add_options(app, EvalOptions{}, flags, Defaults::Hidden);
  use_short_help(app, {"data", "split", "checkpoint", "check-leak", "require-converged", "json",
                       "solver", "max-steps", "rel-tol", "eval-length", "eval-history",
                       "weight-type", "threads", "device"});
  app.footer("Defaults are those of the run.");
  if (const auto code = parse(app, argc, argv)) return *code;
  use_threads(threads);

  TrainedModel run = load_run(folder, checkpoint, device);
  if (require_converged) check_equilibrium(run);
  EvalOptions options{
      run.options.equilibrium, run.options.eval, {}, run.options.task, run.options.model.halting};
  assign_options(options, flags);
  check_task_options(run, data, split, flags);
  set_task(run, options.task);
  settle(options.equilibrium, run.options.model, flags);
  check_evaluation(run.options.task, flags, leak);
  run.model->read_weights(options.reading);
  run.model->halt_by(options.halting);
  const Split chosen = split_of(run, data, split);
  Progress progress;
  const auto show = [&](double share) {
    if (!json) progress.show(share, fmt::format("evaluating {:.0f}%", 100 * share), false);
  };
  const Evaluation result = evaluate(*run.model, chosen, options.equilibrium, options.eval, show);
  progress.finish();
  nlohmann::ordered_json row{{"split", split}};
  row.update(json_of(result, run.options.task));
  row["seconds"] = result.seconds;
  row["weight_type"] = weight_type_name(*run.model);
  if (!json) print_result(result, run, split);
  if (beginnings > 0) {
    const auto groups =
        measure_beginnings(*run.model, chosen, options.equilibrium, options.eval, beginnings);
    row["beginnings"] = rows_of(groups);
    if (!json) print_beginnings(groups, run.options.task, beginnings);
  }
  if (leak) {
    const double moved = measure_leak(*run.model, chosen, options.equilibrium, options.eval);
    row["leak"] = std::isfinite(moved) ? nlohmann::ordered_json(moved) : nullptr;
    if (!json && std::isfinite(moved))
      fmt::print("leak: earlier positions move by {:.2e} of their norm\n", moved);
    if (!json && !std::isfinite(moved))
      fmt::print("leak: not measurable, as states are zero or not finite\n");
  }
  if (json) fmt::print("{}\n", row.dump());
  if (require_converged && result.unconverged > 0) {
    fmt::print(stderr, "error: {} rows did not converge; expected none (--require-converged)\n",
               result.unconverged);
    return 1;
  }
  return 0;
}

}  // namespace deq::cli
