// `deq measure WHAT`: what the paper claims, measured on a configuration or on one's own runs, as a
// table and as a picture.

#include "cli/commands.h"
#include "cli/given.h"
#include "cli/measure_request.h"
#include "cli/progress.h"
#include "deq/measure/convergence.h"
#include "deq/measure/cost.h"
#include "deq/measure/decoding.h"
#include "deq/measure/gradients.h"
#include "deq/measure/layers.h"
#include "deq/measure/memory.h"
#include "deq/measure/sides.h"
#include "deq/measure/tolerance.h"
#include "deq/measure/training.h"

namespace deq::cli {
namespace {

int memory(int argc, char** argv) {
  Request request("memory",
                  "Memory of a training step against depth: the equilibrium, and its cell as a "
                  "weight-tied network, checkpointed or not. On made-up tokens.");
  std::string config;
  Assignments model_flags;
  MemoryOptions how;
  TrainOptions options;
  request.app.add_option("--config", config, "TOML file with options by the names of the flags");
  request.take_figure();
  add_options(request.app, options, model_flags);
  if (const auto code = request.parse(how, argc, argv)) return *code;
  assign_options(how, request.flags);
  Places places;
  const Assignments given = given_options(config, model_flags, places);
  assign_options(options, given, places);
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

/// What is given and changes nothing of any of these networks.
void check_cost(const std::vector<std::string>& folders, const Assignments& given) {
  const auto solves = [](const std::string& folder) {
    return !read_run_options(folder).model.is_explicit();
  };
  DEQ_CHECK(!given.count("max_steps") || std::any_of(folders.begin(), folders.end(), solves),
            "max-steps = {}: an explicit network has no equilibrium; expected a run that has",
            given.at("max_steps"));
  const auto decodes = [](const std::string& folder) {
    return continues_text(read_run_options(folder).task);
  };
  const bool any = std::any_of(folders.begin(), folders.end(), decodes);
  DEQ_CHECK(any || !given.count("decode"),
            "decode = {}: task {} answers whole problems, with no token to follow; expected a run "
            "of a text",
            given.at("decode"), task_name(read_run_options(folders.front()).task));
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
  check_cost(request.folders, request.flags);
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

/// A run of task masked, and a causal one beside it.
void take_pair(Request& request) {
  request.app
      .add_option("RUN", request.folders, "a run of task masked, and a causal one of the text")
      ->required()
      ->expected(2);
  request.take_data().take_threads();
}

int sides(int argc, char** argv) {
  Request request("sides",
                  "Bits a character of a run of task masked, which sees both sides of a hole, and "
                  "of a causal run on the same characters.");
  SidesOptions how;
  take_pair(request);
  if (const auto code = request.parse(how, argc, argv)) return *code;
  assign_options(how, request.flags);
  const TrainedModel masked = request.run(0), causal = request.run(1);
  request.print(measure_sides(masked, causal, request.corpus(masked), how));
  return 0;
}

int anew(int argc, char** argv) {
  Request request("anew",
                  "A text told character by character: by a causal run that keeps its equilibria, "
                  "and by one of task masked that solves all of them again for each.");
  AnewOptions how;
  take_pair(request);
  if (const auto code = request.parse(how, argc, argv)) return *code;
  assign_options(how, request.flags);
  const TrainedModel masked = request.run(0), causal = request.run(1);
  request.print(measure_anew(masked, causal, request.corpus(causal).test, how));
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
  DEQ_CHECK(!how.data.empty() || !request.flags.count("epochs"),
            "epochs = {}: nothing is trained without images; expected --data with it", how.epochs);
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
    {"sides", sides, "bits by seeing both sides of a hole, and by the left one"},
    {"anew", anew, "a text told by solving all of it again for each character"},
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
