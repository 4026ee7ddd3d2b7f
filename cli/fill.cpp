// `deq fill RUN TEXT`: what stood in a text's holes, all of them as one equilibrium.
#include "deq/train/fill.h"

#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/help.h"
#include "cli/options.h"
#include "cli/parse.h"
#include "cli/threads.h"
#include "deq/base/printable.h"
#include "deq/files/folder_lock.h"
#include "deq/runs/run.h"
#include "deq/tasks/masked.h"

namespace deq::cli {
namespace {

using Json = nlohmann::ordered_json;

const Masked& masked_of(const TrainedModel& run) {
  const auto* task = run.options.task.get_if<Masked>();
  DEQ_CHECK(task, "run '{}' is of task {}; expected one of task masked", run.folder,
            task_name(run.options.task));
  return *task;
}

void check_holes(const Masked& task, const at::Tensor& text, int64_t hole) {
  const int64_t holes = text.eq(hole).sum().item<int64_t>(), length = text.size(0);
  const double share = double(holes) / double(length);
  DEQ_CHECK(share <= task.most,
            "{} of {} characters are holes, {:.0f}%; the run was trained for {:.0f}% at most "
            "(task-most)",
            holes, length, 100 * share, 100 * task.most);
  if (length > task.length)
    fmt::print(stderr, "{} characters; the run was trained for {} (task-length)\n", length,
               task.length);
}

std::string shown(const TrainedModel& run, const FilledHole& hole) {
  std::string text = fmt::format("{}:", hole.place + 1);
  for (const auto& [answer, probability] : hole.alternatives)
    text += fmt::format("  {} {:.1f}%", printable(run.answers.token(answer)), 100 * probability);
  return text;
}

Json json_of(const TrainedModel& run, const Filled& found, const std::string& text) {
  Json row{{"text", text},
           {"residual", std::isfinite(found.residual) ? Json(found.residual) : Json()},
           {"converged", found.converged},
           {"evaluations", found.evaluations},
           {"solves", found.solves},
           {"holes", Json::array()}};
  for (const FilledHole& hole : found.holes) {
    Json one{{"place", hole.place + 1}, {"solve", hole.solve + 1}, {"alternatives", Json::array()}};
    for (const auto& [answer, probability] : hole.alternatives)
      one["alternatives"].push_back(
          {{"character", run.answers.token(answer)},
           {"probability", std::isfinite(probability) ? Json(probability) : Json()}});
    row["holes"].push_back(one);
  }
  return row;
}

std::vector<int64_t> as_inputs(const TrainedModel& run) {
  std::vector<int64_t> found;
  for (int64_t id = 0; id < run.answers.size(); ++id)
    found.push_back(run.vocabulary.find(run.answers.token(id)).value());
  return found;
}

}  // namespace

int fill(int argc, char** argv) {
  CLI::App app(
      "Fills the holes of a text, by a run of task masked: all of them solved together as one "
      "equilibrium. Exit code 3 where a solve has not converged.",
      "deq fill");
  std::string folder, text, checkpoint, device = "cpu";
  int64_t threads = 0;
  bool json = false;
  Assignments flags;
  app.add_option("RUN", folder, "run folder")->required();
  app.add_option("TEXT", text, "one line; each underscore is a character to be found")->required();
  app.add_option("--checkpoint", checkpoint, "best or last [best]");
  app.add_option("--threads", threads, "threads; 0: all cores")->check(CLI::Range(0, 4096));
  app.add_option("--device", device, "cpu, cuda or cuda:N [cpu]");
  app.add_flag("--json", json, "one JSON object");
  add_options(app, FillOptions{}, flags, Defaults::Hidden);
  use_short_help(app, {"refine", "alternatives", "checkpoint", "json", "solver", "max-steps",
                       "rel-tol", "threads", "device"});
  app.footer("Defaults are those of the run.");
  if (const auto code = parse(app, argc, argv)) return *code;
  use_threads(threads);

  check_unlocked(folder);
  TrainedModel run = load_run(folder, checkpoint, device);
  const Masked& task = masked_of(run);
  FillOptions options;
  options.equilibrium = run.options.equilibrium;
  assign_options(options, flags);
  settle(options.equilibrium, run.options.model, flags);
  const auto problems = task.read_text(text, "the text", run.vocabulary);
  DEQ_CHECK(problems.size() == 1, "the text has {} lines; expected one", problems.size());
  const at::Tensor& problem = problems.front().tokens;
  const int64_t hole = hole_of(run.vocabulary);
  check_holes(task, problem, hole);

  const Filled found = deq::fill(*run.model, problem, hole, as_inputs(run), options);
  const std::string filled = task.show({problem, found.answer, run.vocabulary, run.answers});
  if (json) {
    fmt::print("{}\n", json_of(run, found, filled).dump());
  } else {
    fmt::print("{}\n", filled);
    for (const FilledHole& one : found.holes) fmt::print("{}\n", shown(run, one));
    fmt::print(stderr, "{}: residual {:.1e}, {} evaluations in {} solve{}\n",
               found.converged ? "converged" : "not converged: not to be trusted", found.residual,
               found.evaluations, found.solves, found.solves == 1 ? "" : "s");
  }
  return found.converged ? 0 : 3;
}

}  // namespace deq::cli
