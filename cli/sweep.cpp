// `deq sweep RUN...`: what more steps and more starts at test time give, for every test set.

#include "deq/measure/sweep.h"

#include <unistd.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "cli/commands.h"
#include "cli/help.h"
#include "cli/options.h"
#include "cli/parse.h"
#include "cli/progress.h"
#include "cli/run_names.h"
#include "cli/threads.h"
#include "deq/files/files.h"
#include "deq/files/folder_lock.h"
#include "deq/measure/sweep_page.h"
#include "deq/measure/sweep_text.h"

namespace deq::cli {
namespace {

namespace fs = std::filesystem;

/// How the runs are solved, where that is not as they were trained.
struct SolveOptions {
  EquilibriumOptions equilibrium;
  int64_t eval_batch = 16;
  ReadingOptions reading;

  static void fields(auto& self, auto&& field) {
    EquilibriumOptions::solve_fields(self.equilibrium, field);
    field.group("evaluation");
    field("eval_batch", self.eval_batch, "problems solved side by side; changes no answer",
          between(1, 65536));
    field("", self.reading);
  }
};

constexpr const char* kFiles[] = {"sweep.json", "sweep.md", "sweep.html"};

/// Only a sweep is replaced. What cannot be written is better known before than after.
void check_replaceable(const fs::path& out) {
  if (!fs::exists(out)) {
    fs::path above = fs::absolute(out).parent_path();
    while (!fs::exists(above) && above.has_relative_path()) above = above.parent_path();
    DEQ_CHECK(fs::is_directory(above) && ::access(above.c_str(), W_OK) == 0,
              "--out '{}' cannot be made in '{}'", out.string(), above.string());
    return;
  }
  DEQ_CHECK(fs::is_directory(out), "--out '{}' is no folder", out.string());
  const char* starts[] = {kSweepJsonStart, kSweepTextStart, kSweepPageStart};
  for (const auto& entry : fs::directory_iterator(out)) {
    const std::string name = entry.path().filename().string();
    bool ours = false;
    for (size_t i = 0; i < std::size(kFiles); ++i) {
      ours = ours || (name == kFiles[i] && entry.is_regular_file() &&
                      read_file(entry.path(), uint64_t(1) << 32).rfind(starts[i], 0) == 0);
    }
    DEQ_CHECK(ours, "--out '{}' has '{}', which is of no sweep; expected a new or empty folder",
              out.string(), name);
  }
}

void check_limits(const SweepOptions& options, const Assignments& solving) {
  DEQ_CHECK(options.limits.empty() || !solving.count("max_steps"),
            "max-steps = {}: step limits are those of --limits {}; expected one of the two",
            solving.at("max_steps"), fmt::join(options.limits, ","));
}

/// What is given and changes nothing of any of these runs.
void check_effect(const std::vector<TrainedModel>& runs, const Assignments& given) {
  const auto any = [&](auto is) { return std::any_of(runs.begin(), runs.end(), is); };
  const std::string names = runs.size() == 1 ? fmt::format("run '{}' is", runs.front().folder)
                                             : std::string("all of the runs are");
  const bool solves = any([](const TrainedModel& run) { return !run.model->is_explicit(); });
  for (const char* key : {"limits", "starts", "paths", "pictures", "start_std", "start_seed"})
    DEQ_CHECK(solves || !given.count(key),
              "{} = {}: {} explicit, of one depth; expected equilibria", dashed(key), given.at(key),
              names);
  const auto rules = given.find("halting");
  if (rules == given.end() || rules->second == "none") return;
  const bool ends = any([](const TrainedModel& run) {
    const DepthOptions& depth = run.options.model.depth;
    return depth.depth == 0 || depth.tied;
  });
  DEQ_CHECK(ends, "halting = {}: {} of levels that are not tied, and all are taken; expected tied",
            rules->second, names);
  const bool learned =
      any([](const TrainedModel& run) { return run.options.model.halting->halts(); });
  DEQ_CHECK(learned || rules->second.find("trained") == std::string::npos,
            "halting = {}: {} trained without a rule; expected residual:T or change:T",
            rules->second, names);
}

/// Before anything is loaded: what can be refused at once.
void check_runs(const std::vector<std::string>& folders) {
  check_different(folders);
  for (const std::string& folder : folders) {
    check_unlocked(folder);
    const auto task = [](const std::string& run) {
      return std::string(task_name(read_run_options(run).task));
    };
    const std::string first = task(folders.front()), own = task(folder);
    DEQ_CHECK(own == first,
              "runs of different tasks cannot be compared: '{}' is of {}, '{}' of {}; expected one "
              "task",
              folders.front(), first, folder, own);
  }
}

/// The problems are those of the first run, for all.
void check_symbols(const TrainedModel& run, const TrainedModel& first) {
  DEQ_CHECK(run.vocabulary.fingerprint() == first.vocabulary.fingerprint() &&
                run.answers.fingerprint() == first.answers.fingerprint(),
            "runs of different symbols cannot be compared: '{}' and '{}'; expected one vocabulary",
            first.folder, run.folder);
}

/// Everything the command was told.
struct Request {
  std::vector<std::string> folders;
  std::string out, data, checkpoint;
  Assignments flags, solving;
  SweepOptions options;
};

SweptRun sweep_one(const Request& request, size_t number, const TrainedModel& run,
                   const Corpus& corpus, Progress* progress) {
  SolveOptions how{run.options.equilibrium, run.options.eval.batch};
  how.equilibrium.stop.max_steps = trained_steps(run.options);
  Assignments solving = request.solving;
  if (run.model->is_explicit() && request.folders.size() > 1)
    solving.clear();  // they are of the equilibria that it stands beside
  assign_options(how, solving);
  Assignments solver = solving;
  for (const char* other : {"eval_batch", "weight_type"}) solver.erase(other);
  settle(how.equilibrium, run.options.model, solver);
  run.model->read_weights(how.reading);
  const std::string name = names_of(request.folders)[number];
  const double count = double(request.folders.size());
  return sweep_run(run, name, corpus, how.equilibrium, how.eval_batch, request.options,
                   /*pictures=*/true, [&](double share, const std::string& what) {
                     if (progress)
                       progress->show((double(number) + share) / count, "sweeping " + what, false);
                   });
}

std::vector<SweptRun> sweep_all(const Request& request, Progress* progress) {
  std::vector<TrainedModel> runs;
  for (const std::string& folder : request.folders) {
    runs.push_back(load_run(folder, request.checkpoint));
    check_sweepable(runs.back());
    check_symbols(runs.back(), runs.front());
  }
  check_effect(runs, request.flags);
  const Corpus corpus = load_corpus(runs.front(), request.data);
  std::vector<SweptRun> found;
  for (size_t i = 0; i < runs.size(); ++i)
    found.push_back(sweep_one(request, i, runs[i], corpus, progress));
  if (progress) progress->finish();
  return found;
}

void write(const fs::path& out, const nlohmann::ordered_json& json,
           const std::vector<SweptRun>& runs) {
  fs::create_directories(out);
  write_file(out / kFiles[0], json.dump(1) + "\n");
  write_file(out / kFiles[1], sweep_tables(runs));
  write_file(out / kFiles[2], sweep_page(runs, json.at("task").get<std::string>()));
}

}  // namespace

int sweep(int argc, char** argv) {
  CLI::App app(
      "What more steps and more starts at test time give: accuracy, residual and cost of one run "
      "or several, for every test set, as a table, as JSON and as a page.",
      "deq sweep");
  Request request;
  int64_t threads = 0;
  bool json = false;
  app.add_option("RUN", request.folders, "run folders, each a seed or a network; of one task")
      ->required();
  app.add_option(
      "--out", request.out,
      "folder for sweep.json, sweep.md and sweep.html [RUN/sweep; of several runs sweep]");
  app.add_option("--data", request.data, "problems, in place of the first run's");
  app.add_option("--checkpoint", request.checkpoint, "best or last [best]");
  app.add_option("--threads", threads, "threads; 0: all cores")->check(CLI::Range(0, 4096));
  app.add_flag("--json", json, "print the JSON in place of the tables");
  add_options(app, SweepOptions{}, request.flags);
  add_options(app, SolveOptions{}, request.solving, Defaults::Hidden);
  use_short_help(app, {"out", "limits", "sets", "problems", "starts", "paths", "pictures", "solver",
                       "max-steps", "rel-tol", "json", "checkpoint", "threads"});
  app.footer("Defaults of the solve are those of each run.");
  if (const auto code = parse(app, argc, argv)) return *code;
  use_threads(threads);

  assign_options(request.options, request.flags);
  if (request.out.empty())
    request.out =
        request.folders.size() > 1 ? "sweep" : (fs::path(request.folders[0]) / "sweep").string();
  check_limits(request.options, request.solving);
  check_runs(request.folders);
  check_replaceable(request.out);
  Progress progress;
  const std::vector<SweptRun> runs = sweep_all(request, json ? nullptr : &progress);
  const auto all = json_of(runs, task_name(read_run_options(request.folders.front()).task));
  write(request.out, all, runs);
  if (json) {
    fmt::print("{}\n", all.dump());
  } else {
    fmt::print("{}\nwrote {}\n", sweep_tables(runs), (fs::path(request.out) / kFiles[2]).string());
  }
  return 0;
}

}  // namespace deq::cli
