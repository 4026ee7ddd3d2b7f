// `deq measure WHAT`: what the paper claims, measured on a configuration or on one's own runs, as a
// table and as a picture.

#include <algorithm>
#include <filesystem>
#include <set>

#include "cli/commands.h"
#include "cli/options.h"
#include "cli/parse.h"
#include "cli/progress.h"
#include "cli/threads.h"
#include "deq/base/toml.h"
#include "deq/files/files.h"
#include "deq/measure/convergence.h"
#include "deq/measure/cost.h"
#include "deq/measure/decoding.h"
#include "deq/measure/gradients.h"
#include "deq/measure/layers.h"
#include "deq/measure/memory.h"
#include "deq/measure/tolerance.h"
#include "deq/measure/training.h"

namespace deq::cli {
namespace {

/// What kinds share: the runs and their data, where the picture goes, threads. Each takes what it
/// has use for, then parses.
struct Request {
  CLI::App app;
  std::vector<std::string> folders;
  std::string data, checkpoint, figure;
  int64_t threads = 0;
  Assignments flags, reading;

  Request(const char* kind, const char* help) : app(help, fmt::format("deq measure {}", kind)) {}

  Request& take_run() {
    app.add_option("RUN", folders, "run folder")->required()->expected(1);
    return *this;
  }
  Request& take_runs() {
    app.add_option("RUN", folders, "run folders")->required();
    return *this;
  }
  Request& take_data() {
    app.add_option("--data", data, "text, in place of the run's");
    app.add_option("--checkpoint", checkpoint, "best or last [best]");
    return *this;
  }
  /// Of kinds that evaluate.
  Request& take_reading() {
    add_options(app, ReadingOptions{}, reading, Defaults::Hidden);
    return *this;
  }
  Request& take_figure() {
    app.add_option("--figure", figure, "also write the numbers as a picture, an .svg file");
    return *this;
  }
  Request& take_threads() {
    app.add_option("--threads", threads, "threads; 0: all cores")->check(CLI::Range(0, 4096));
    return *this;
  }

  /// As cli::parse; `how` are the kind's own options, whose values land in `flags`.
  template <class T>
  std::optional<int> parse(const T& how, int argc, char** argv,
                           Defaults defaults = Defaults::Shown) {
    add_options(app, how, flags, defaults);
    if (const auto code = cli::parse(app, argc, argv)) return code;
    use_threads(threads);
    check_figure();
    return std::nullopt;
  }

  /// What a table calls the runs: their folders' names, or paths where these do not differ.
  std::vector<std::string> names() const {
    std::vector<std::string> found;
    for (const std::string& folder : folders)
      found.push_back(std::filesystem::path(folder).lexically_normal().filename().string());
    const bool differ = std::set<std::string>(found.begin(), found.end()).size() == found.size();
    return differ && std::count(found.begin(), found.end(), "") == 0 ? found : folders;
  }
  TrainedModel run(size_t number = 0) const {
    TrainedModel found = load_run(folders[number], checkpoint);
    ReadingOptions how;
    assign_options(how, reading);
    found.model->read_weights(how);
    return found;
  }
  Corpus corpus(const TrainedModel& run) const { return load_corpus(run, data); }

  void print(const Measurement& found) const {
    fmt::print("{}", markdown(found));
    if (figure.empty()) return;
    write_file(figure, picture(found.charts));
    fmt::print(stderr, "wrote {}\n", figure);
  }

 private:
  /// Only a picture is replaced.
  void check_figure() const {
    if (figure.empty()) return;
    DEQ_CHECK(std::filesystem::path(figure).extension() == ".svg",
              "--figure '{}'; expected a name that ends in .svg", figure);
    if (std::filesystem::exists(figure)) {
      DEQ_CHECK(std::filesystem::is_regular_file(figure) &&
                    read_file(figure, 1 << 26).rfind("<svg", 0) == 0,
                "--figure '{}' exists and is no picture; expected a new name", figure);
    }
  }
};

int memory(int argc, char** argv) {
  Request request("memory",
                  "Memory of a training step against depth: the equilibrium, and its cell as a "
                  "weight-tied network, checkpointed or not. On made-up tokens.");
  std::string config;
  Assignments given, model_flags;
  MemoryOptions how;
  TrainOptions options;
  request.app.add_option("--config", config, "TOML file with options by the names of the flags");
  request.take_figure();
  add_options(request.app, options, model_flags);
  if (const auto code = request.parse(how, argc, argv)) return *code;
  assign_options(how, request.flags);
  if (!config.empty()) given = parse_toml(read_file(config, 1 << 24), config);
  for (const auto& [key, value] : model_flags) given[key] = value;
  assign_options(options, given);
  settle(options, given);
  use_threads(options.loop.run.threads);
  request.print(measure_memory(options, how));
  return 0;
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
  Request request("convergence",
                  "Residual against evaluations, for three methods, by sample and by position.");
  ConvergenceOptions how;
  request.take_runs().take_data().take_reading().take_figure().take_threads();
  if (const auto code = request.parse(how, argc, argv)) return *code;
  assign_options(how, request.flags);
  Measurement all;
  for (size_t i = 0; i < request.folders.size(); ++i) {
    const TrainedModel run = request.run(i);
    append(all, measure_convergence(run, request.names()[i], request.corpus(run).valid, how));
  }
  request.print(all);
  return 0;
}

int tolerance(int argc, char** argv) {
  Request request("tolerance",
                  "Perplexity of the test split against the tolerance of its solves, with what "
                  "leaks at each.");
  ToleranceOptions how;
  request.take_run().take_data().take_reading().take_figure().take_threads();
  if (const auto code = request.parse(how, argc, argv)) return *code;
  assign_options(how, request.flags);
  const TrainedModel run = request.run();
  Progress progress;
  const auto show = [&](double share) {
    progress.show(share, fmt::format("evaluating {:.0f}%", 100 * share), false);
  };
  const Measurement found = measure_tolerance(run, request.corpus(run).test, how, show);
  progress.finish();
  request.print(found);
  return 0;
}

int decoding(int argc, char** argv) {
  Request request("decoding",
                  "Tokens per second of a text solved at once, one by one with earlier equilibria "
                  "kept, and one by one with every prefix solved again.");
  request.take_run().take_data().take_reading().take_figure().take_threads();
  request.app.footer("Defaults of the solve are those of the run.");
  if (const auto code = request.parse(DecodingOptions{}, argc, argv, Defaults::Hidden))
    return *code;
  const TrainedModel run = request.run();
  DecodingOptions how;
  how.equilibrium = run.options.equilibrium;
  assign_options(how, request.flags);
  settle(how.equilibrium, run.options.model, request.flags);
  request.print(measure_decoding(run, request.corpus(run).test, how));
  return 0;
}

int gradients(int argc, char** argv) {
  Request request("gradients",
                  "Implicit, SHINE, phantom and one-step gradients beside the exact one, on the "
                  "validation split.");
  GradientsOptions how;
  request.take_run().take_data().take_threads();
  if (const auto code = request.parse(how, argc, argv)) return *code;
  assign_options(how, request.flags);
  const TrainedModel run = request.run();
  request.print(measure_gradients(run, request.corpus(run).valid, how));
  return 0;
}

int cost(int argc, char** argv) {
  Request request("cost",
                  "Networks side by side: the metric of the test split, memory of a training step, "
                  "and seconds per 1,000 tokens in training, evaluation and decoding.");
  CostOptions how;
  request.take_runs().take_data().take_reading().take_threads();
  if (const auto code = request.parse(how, argc, argv)) return *code;
  assign_options(how, request.flags);
  check_one_metric(request.folders);
  Measurement all;
  Progress progress;
  for (size_t i = 0; i < request.folders.size(); ++i) {
    const TrainedModel run = request.run(i);
    const std::string name = request.names()[i];
    append(all, measure_cost(run, name, request.corpus(run), how, [&](double share) {
             progress.show(share, fmt::format("{}: evaluating {:.0f}%", name, 100 * share), false);
           }));
  }
  progress.finish();
  request.print(all);
  return 0;
}

int training(int argc, char** argv) {
  Request request("training",
                  "Loss, evaluations and residual over training, of runs side by side.");
  TrainingOptions how;
  request.take_runs().take_figure();
  if (const auto code = request.parse(how, argc, argv)) return *code;
  assign_options(how, request.flags);
  std::vector<RunRecord> runs;
  for (size_t i = 0; i < request.folders.size(); ++i) {
    runs.push_back(read_run(request.folders[i]));
    runs.back().name = request.names()[i];
  }
  check_comparable(runs);
  request.print(measure_training(runs, how));
  return 0;
}

int layers(int argc, char** argv) {
  Request request(
      "layers",
      "Layers that are defined by a condition: the least processor time on one thread, "
      "what is left of the condition, and counts, of a workload's parts in a row each.");
  bool as_json = false;
  LayersOptions how;
  request.app.add_flag("--json", as_json, "print an array of objects in place of a table");
  if (const auto code = request.parse(how, argc, argv)) return *code;
  assign_options(how, request.flags);
  const std::vector<LayerCost> costs = measure_layers(how);
  if (as_json) {
    fmt::print("{}\n", json(costs));
  } else {
    request.print(table(costs));
  }
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
    {"layers", layers, "time and counts of quadratic programs, MAXSAT, contact, ODEs"},
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
