// `deq measure WHAT`: what the paper claims, measured on a configuration or on one's own runs, as a
// table and as a picture.
#include <ATen/Parallel.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "cli/commands.h"
#include "cli/options.h"
#include "cli/parse.h"
#include "cli/progress.h"
#include "deq/base/files.h"
#include "deq/measure/convergence.h"
#include "deq/measure/cost.h"
#include "deq/measure/decoding.h"
#include "deq/measure/gradients.h"
#include "deq/measure/memory.h"
#include "deq/measure/tolerance.h"
#include "deq/measure/training.h"

namespace deq::cli {
namespace {

/// What all kinds share: where the picture goes, and threads.
struct Output {
  std::string figure;
  int64_t threads = 0;

  void add_figure_to(CLI::App& app) {
    app.add_option("--figure", figure, "also write the numbers as a picture, an .svg file");
  }
  void add_threads_to(CLI::App& app) {
    app.add_option("--threads", threads, "threads; 0: all cores")->check(CLI::Range(0, 4096));
  }
  void add_to(CLI::App& app) {
    add_figure_to(app);
    add_threads_to(app);
  }
  /// Only a picture is replaced.
  void prepare() const {
    if (threads > 0) at::set_num_threads(int(threads));
    if (figure.empty()) return;
    DEQ_CHECK(std::filesystem::path(figure).extension() == ".svg",
              "--figure '{}'; expected a name that ends in .svg", figure);
    if (std::filesystem::exists(figure)) {
      DEQ_CHECK(std::filesystem::is_regular_file(figure) &&
                    read_file(figure, 1 << 26).rfind("<svg", 0) == 0,
                "--figure '{}' exists and is no picture; expected a new name", figure);
    }
  }
  void print(const Measurement& found) const {
    fmt::print("{}", markdown(found));
    if (figure.empty()) return;
    write_file(figure, picture(found.charts));
    fmt::print(stderr, "wrote {}\n", figure);
  }
};

/// A run and the split of its data, or of others, that is looked at.
struct RunData {
  std::string data, checkpoint;
  Assignments reading;

  /// `evaluates`: in evaluation mode, where weights can be read rounded.
  void add_to(CLI::App& app, bool evaluates = true) {
    app.add_option("--data", data, "text, in place of the run's");
    app.add_option("--checkpoint", checkpoint, "best or last [best]");
    if (evaluates) add_options(app, ReadingOptions{}, reading, Defaults::Hidden);
  }
  TrainedModel model(const std::string& folder) const {
    TrainedModel run = load_run(folder, checkpoint);
    ReadingOptions how;
    assign_options(how, reading);
    run.model->read_weights(how);
    return run;
  }
  Corpus corpus(const TrainedModel& run) const {
    return load(run.options.task, data.empty() ? run.options.data : data, run.vocabulary);
  }
};

int memory(int argc, char** argv) {
  CLI::App app(
      "Memory of a training step against depth: the equilibrium, and its cell as a weight-tied "
      "network, checkpointed or not. On made-up tokens.",
      "deq measure memory");
  Output output;
  std::string config;
  Assignments flags, how_flags;
  TrainOptions options;
  MemoryOptions how;
  app.add_option("--config", config, "TOML file with options by the names of the flags");
  output.add_figure_to(app);
  add_options(app, how, how_flags);
  add_options(app, options, flags);
  if (const auto code = parse(app, argc, argv)) return *code;
  output.prepare();
  assign_options(how, how_flags);
  Assignments given;
  if (!config.empty()) given = parse_toml(read_file(config, 1 << 24), config);
  for (const auto& [key, value] : flags) given[key] = value;
  assign_options(options, given);
  settle(options.equilibrium, options.model, given);
  if (options.loop.run.threads > 0) at::set_num_threads(int(options.loop.run.threads));
  output.print(measure_memory(options, how));
  return 0;
}

/// What a table calls the runs: their folders' names, or paths where these do not differ.
std::vector<std::string> names_of(const std::vector<std::string>& folders) {
  std::vector<std::string> names;
  for (const std::string& folder : folders)
    names.push_back(std::filesystem::path(folder).lexically_normal().filename().string());
  const bool differ = std::set<std::string>(names.begin(), names.end()).size() == names.size();
  return differ && std::count(names.begin(), names.end(), "") == 0 ? names : folders;
}

/// Before anything is measured.
void check_one_metric(const std::vector<std::string>& folders) {
  const auto metric = [](const std::string& folder) {
    return std::string(metric_name(read_run_options(folder).task));
  };
  for (const std::string& folder : folders)
    DEQ_CHECK(metric(folder) == metric(folders.front()),
              "runs cannot be compared: '{}' has {}, '{}' {}; expected one metric", folders.front(),
              metric(folders.front()), folder, metric(folder));
}

/// Adds the rows and charts of one run to those of the others.
void append(Measurement& all, const Measurement& found) {
  all.columns = found.columns;
  all.rows.insert(all.rows.end(), found.rows.begin(), found.rows.end());
  all.charts.insert(all.charts.end(), found.charts.begin(), found.charts.end());
}

int convergence(int argc, char** argv) {
  CLI::App app("Residual against evaluations, for three methods, by sample and by position.",
               "deq measure convergence");
  Output output;
  RunData data;
  std::vector<std::string> folders;
  Assignments flags;
  ConvergenceOptions how;
  app.add_option("RUN", folders, "run folders")->required();
  output.add_to(app);
  data.add_to(app);
  add_options(app, how, flags);
  if (const auto code = parse(app, argc, argv)) return *code;
  output.prepare();
  assign_options(how, flags);
  Measurement all;
  const std::vector<std::string> names = names_of(folders);
  for (size_t i = 0; i < folders.size(); ++i) {
    const TrainedModel run = data.model(folders[i]);
    append(all, measure_convergence(run, names[i], data.corpus(run).valid, how));
  }
  output.print(all);
  return 0;
}

int tolerance(int argc, char** argv) {
  CLI::App app(
      "Perplexity of the test split against the tolerance of its solves, with what leaks at each.",
      "deq measure tolerance");
  Output output;
  RunData data;
  std::string folder;
  Assignments flags;
  ToleranceOptions how;
  app.add_option("RUN", folder, "run folder")->required();
  output.add_to(app);
  data.add_to(app);
  add_options(app, how, flags);
  if (const auto code = parse(app, argc, argv)) return *code;
  output.prepare();
  assign_options(how, flags);
  const TrainedModel run = data.model(folder);
  Progress progress;
  const Measurement found = measure_tolerance(run, data.corpus(run).test, how, [&](double share) {
    progress.show(share, fmt::format("evaluating {:.0f}%", 100 * share), false);
  });
  progress.finish();
  output.print(found);
  return 0;
}

int decoding(int argc, char** argv) {
  CLI::App app(
      "Tokens per second of a text solved at once, one by one with earlier equilibria kept, and "
      "one by one with every prefix solved again.",
      "deq measure decoding");
  Output output;
  RunData data;
  std::string folder;
  Assignments flags;
  app.add_option("RUN", folder, "run folder")->required();
  output.add_to(app);
  data.add_to(app);
  add_options(app, DecodingOptions{}, flags, Defaults::Hidden);
  app.footer("Defaults of the solve are those of the run.");
  if (const auto code = parse(app, argc, argv)) return *code;
  output.prepare();
  const TrainedModel run = data.model(folder);
  DecodingOptions how;
  how.equilibrium = run.options.equilibrium;
  assign_options(how, flags);
  settle(how.equilibrium, run.options.model, flags);
  output.print(measure_decoding(run, data.corpus(run).test, how));
  return 0;
}

int gradients(int argc, char** argv) {
  CLI::App app(
      "Implicit, SHINE, phantom and one-step gradients beside the exact one, on the validation "
      "split.",
      "deq measure gradients");
  Output output;
  RunData data;
  std::string folder;
  Assignments flags;
  GradientsOptions how;
  app.add_option("RUN", folder, "run folder")->required();
  output.add_threads_to(app);
  data.add_to(app, false);
  add_options(app, how, flags);
  if (const auto code = parse(app, argc, argv)) return *code;
  output.prepare();
  assign_options(how, flags);
  const TrainedModel run = data.model(folder);
  output.print(measure_gradients(run, data.corpus(run).valid, how));
  return 0;
}

int cost(int argc, char** argv) {
  CLI::App app(
      "Networks side by side: the metric of the test split, memory of a training step, and seconds "
      "per 1,000 tokens in training, evaluation and decoding.",
      "deq measure cost");
  Output output;
  RunData data;
  std::vector<std::string> folders;
  Assignments flags;
  CostOptions how;
  app.add_option("RUN", folders, "run folders")->required();
  output.add_threads_to(app);
  data.add_to(app);
  add_options(app, how, flags);
  if (const auto code = parse(app, argc, argv)) return *code;
  output.prepare();
  assign_options(how, flags);
  check_one_metric(folders);
  Measurement all;
  Progress progress;
  const std::vector<std::string> names = names_of(folders);
  for (size_t i = 0; i < folders.size(); ++i) {
    const TrainedModel run = data.model(folders[i]);
    const std::string& name = names[i];
    append(all, measure_cost(run, name, data.corpus(run), how, [&](double share) {
             progress.show(share, fmt::format("{}: evaluating {:.0f}%", name, 100 * share), false);
           }));
  }
  progress.finish();
  output.print(all);
  return 0;
}

int training(int argc, char** argv) {
  CLI::App app("Loss, evaluations and residual over training, of runs side by side.",
               "deq measure training");
  Output output;
  std::vector<std::string> folders;
  Assignments flags;
  TrainingOptions how;
  app.add_option("RUN", folders, "run folders")->required();
  output.add_figure_to(app);
  add_options(app, how, flags);
  if (const auto code = parse(app, argc, argv)) return *code;
  output.prepare();
  assign_options(how, flags);
  std::vector<RunRecord> runs;
  const std::vector<std::string> names = names_of(folders);
  for (size_t i = 0; i < folders.size(); ++i) {
    runs.push_back(read_run(folders[i]));
    runs.back().name = names[i];
  }
  check_comparable(runs);
  output.print(measure_training(runs, how));
  return 0;
}

struct Kind {
  const char* name;
  int (*run)(int argc, char** argv);
  const char* help;
};
constexpr Kind kKinds[] = {
    {"memory", memory, "of a training step, against depth"},
    {"convergence", convergence, "residual against evaluations, by method"},
    {"tolerance", tolerance, "perplexity and leak against the tolerance of solves"},
    {"gradients", gradients, "error and cost of approximate gradients"},
    {"decoding", decoding, "tokens per second, at once and one by one"},
    {"training", training, "loss, evaluations and residual over training"},
    {"cost", cost, "metric, memory and seconds of networks side by side"},
};

}  // namespace

int measure(int argc, char** argv) {
  const std::string name = argc > 0 ? argv[0] : "";
  for (const Kind& kind : kKinds) {
    if (name == kind.name) return kind.run(argc - 1, argv + 1);
  }
  std::string known;
  for (const Kind& kind : kKinds) known += fmt::format("  {:<12} {}\n", kind.name, kind.help);
  const bool help = name == "--help" || name == "-h";
  if (!help && !name.empty()) fmt::print(stderr, "error: measure: unknown '{}'\n", name);
  fmt::print(help ? stdout : stderr,
             "usage: deq measure <what> [options]\n\n{}\n`deq measure <what> --help` lists its "
             "options.\n",
             known);
  return help ? 0 : 2;
}

}  // namespace deq::cli
