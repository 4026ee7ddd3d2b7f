// `deq fill RUN TEXT`: what stood in a text's holes, all of them as one equilibrium; and how the
// text goes on, all of it solved again for each character.
#include "deq/train/fill.h"

#include <ATen/CPUGeneratorImpl.h>

#include <nlohmann/json.hpp>
#include <random>

#include "cli/commands.h"
#include "cli/help.h"
#include "cli/options.h"
#include "cli/parse.h"
#include "cli/threads.h"
#include "deq/base/printable.h"
#include "deq/decode/sampling.h"
#include "deq/decode/whole.h"
#include "deq/files/folder_lock.h"
#include "deq/runs/run.h"
#include "deq/tasks/masked.h"

namespace deq::cli {
namespace {

using Json = nlohmann::ordered_json;

/// What is to follow a text.
struct AppendOptions {
  int64_t append = 0;
  int64_t seed = 0;
  SamplingOptions sampling;

  static void fields(auto& self, auto&& field) {
    field("append", self.append,
          "characters put behind the text, each found from all of it, solved again from where it "
          "stood",
          between(0, 1 << 24));
    field("seed", self.seed, "of their draws; 0: another one each time", at_least(0));
    field("", self.sampling);
  }
};

const Masked& masked_of(const TrainedModel& run) {
  const auto* task = run.options.task.get_if<Masked>();
  DEQ_CHECK(task, "run '{}' is of task {}; expected one of task masked", run.folder,
            task_name(run.options.task));
  return *task;
}

/// Throws deq::Error for what is given and changes nothing.
void check_append(const AppendOptions& how, const TrainedModel& run, const Assignments& given) {
  for (const auto& [key, value] : given)
    DEQ_CHECK(how.append > 0 || key == "append",
              "{} = {}: nothing follows the text; expected --append N with it", dashed(key), value);
  check_draws(how.sampling, run.answers.size(), given);
}

/// The same of a text without holes.
void check_filled(const Assignments& given) {
  for (const char* key : {"refine", "alternatives"})
    DEQ_CHECK(!given.count(key), "{} = {}: the text has no hole to fill; expected one with it", key,
              given.at(key));
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

/// Characters behind a text, and what they took.
struct Appended {
  std::string text;
  WholeReport report;
};

Json finite_or_null(double value) { return std::isfinite(value) ? Json(value) : Json(); }

Json json_of(const TrainedModel& run, const Filled& found, const std::string& text,
             const Appended& more) {
  Json row{{"text", text},
           {"residual", finite_or_null(found.residual)},
           {"converged", found.converged},
           {"evaluations", found.evaluations},
           {"solves", found.solves},
           {"holes", Json::array()}};
  for (const FilledHole& hole : found.holes) {
    Json one{{"place", hole.place + 1}, {"solve", hole.solve + 1}, {"alternatives", Json::array()}};
    for (const auto& [answer, probability] : hole.alternatives)
      one["alternatives"].push_back(
          {{"character", run.answers.token(answer)}, {"probability", finite_or_null(probability)}});
    row["holes"].push_back(one);
  }
  if (more.report.solves > 0)
    row["appended"] = {{"text", more.text},
                       {"residual", finite_or_null(more.report.worst_residual)},
                       {"solves", more.report.solves},
                       {"converged", more.report.converged},
                       {"evaluations", more.report.evaluations}};
  return row;
}

/// The inputs that a text's characters are, the found ones among them.
std::vector<int64_t> known(const at::Tensor& problem, const at::Tensor& answer,
                           const std::vector<int64_t>& as_input) {
  std::vector<int64_t> found;
  for (int64_t t = 0; t < problem.size(0); ++t) {
    const int64_t id = answer[t].item<int64_t>();
    found.push_back(id >= 0 ? as_input.at(size_t(id)) : problem[t].item<int64_t>());
  }
  return found;
}

Appended append(const TrainedModel& run, const std::vector<int64_t>& text,
                const std::vector<int64_t>& as_input, const EquilibriumOptions& equilibrium,
                const AppendOptions& how) {
  const Masked& task = masked_of(run);
  if (task.ends == 0)
    fmt::print(stderr, "no text of the run's training has an end (task-ends = 0)\n");
  const int64_t seed = how.seed > 0 ? how.seed : int64_t(std::random_device{}());
  at::Generator random = at::make_generator<at::CPUGeneratorImpl>(uint64_t(seed));
  WholeText whole(*run.model, equilibrium,
                  {.hole = hole_of(run.vocabulary), .length = task.length});
  whole.feed(text);
  Appended found;
  for (int64_t i = 0; i < how.append; ++i) {
    const int64_t answer = sample(whole.next(), how.sampling, random);
    found.text += run.answers.token(answer);
    whole.feed({as_input.at(size_t(answer))});
  }
  found.report = whole.report();
  return found;
}

void print_for_people(const TrainedModel& run, const Filled& found, const std::string& text,
                      const Appended& more) {
  fmt::print("{}{}\n", text, more.text);
  for (const FilledHole& one : found.holes) fmt::print("{}\n", shown(run, one));
  if (found.solves > 0)
    fmt::print(stderr, "{}: residual {:.1e}, {} evaluations in {} solve{}\n",
               found.converged ? "converged" : "not converged: not to be trusted", found.residual,
               found.evaluations, found.solves, found.solves == 1 ? "" : "s");
  const WholeReport& r = more.report;
  if (r.solves > 0)
    fmt::print(
        stderr,
        "{} characters behind it: {} converged, {:.1f} evaluations of {:.0f} positions each, "
        "worst residual {:.1e}\n",
        r.solves, r.converged, double(r.evaluations) / double(r.solves),
        double(r.positions) / double(r.solves), r.worst_residual);
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
      "equilibrium. With --append it goes on with the text. Exit code 3 where a solve has not "
      "converged.",
      "deq fill");
  std::string folder, text, checkpoint, device = "cpu";
  int64_t threads = 0;
  bool json = false;
  Assignments flags, behind;
  app.add_option("RUN", folder, "run folder")->required();
  app.add_option("TEXT", text, "one line; each underscore is a character to be found")->required();
  app.add_option("--checkpoint", checkpoint, "best or last [best]");
  app.add_option("--threads", threads, "threads; 0: all cores")->check(CLI::Range(0, 4096));
  app.add_option("--device", device, "cpu, cuda or cuda:N [cpu]");
  app.add_flag("--json", json, "one JSON object");
  add_options(app, FillOptions{}, flags, Defaults::Hidden);
  add_options(app, AppendOptions{}, behind);
  use_short_help(app,
                 {"refine", "alternatives", "append", "greedy", "temperature", "seed", "checkpoint",
                  "json", "solver", "max-steps", "rel-tol", "threads", "device"});
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
  AppendOptions more;
  assign_options(more, behind);
  check_sampling(more.sampling);
  check_append(more, run, behind);
  // What follows is a hole as well, behind the text.
  const auto problems =
      task.read_text(more.append > 0 ? text + "_" : text, "the text", run.vocabulary);
  DEQ_CHECK(problems.size() == 1, "the text has {} lines; expected one", problems.size());
  const at::Tensor& asked = problems.front().tokens;
  const at::Tensor problem = asked.narrow(0, 0, asked.size(0) - (more.append > 0 ? 1 : 0));
  DEQ_CHECK(problem.size(0) > 0, "append = {} behind an empty text; expected a character at least",
            more.append);
  const int64_t hole = hole_of(run.vocabulary);
  check_holes(task, problem, hole);
  const std::vector<int64_t> as_input = as_inputs(run);

  Filled found{.answer = at::full_like(problem, -1), .holes = {}, .converged = true};
  if (problem.eq(hole).any().item<bool>()) {
    found = deq::fill(*run.model, problem, hole, as_input, options);
  } else {
    check_filled(flags);
  }
  const std::string filled = task.show({problem, found.answer, run.vocabulary, run.answers});
  Appended behind_it;
  if (more.append > 0)
    behind_it =
        append(run, known(problem, found.answer, as_input), as_input, options.equilibrium, more);
  if (json)
    fmt::print("{}\n", json_of(run, found, filled, behind_it).dump());
  else
    print_for_people(run, found, filled, behind_it);
  return found.converged && behind_it.report.converged == behind_it.report.solves ? 0 : 3;
}

}  // namespace deq::cli
