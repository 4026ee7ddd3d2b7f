// `deq train RUN`: trains a model into a run folder; `--resume` goes on where it was stopped or
// killed.

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/given.h"
#include "cli/help.h"
#include "cli/interrupt.h"
#include "cli/options.h"
#include "cli/parse.h"
#include "cli/processes.h"
#include "cli/progress.h"
#include "cli/scores.h"
#include "cli/threads.h"
#include "deq/runs/dry_run.h"
#include "deq/runs/run.h"

namespace deq::cli {
namespace {

std::string metric_text(const Task& task, double loss) {
  return fmt::format("{} {:.4g}", unit_of(task) == Unit::Word ? "ppl" : metric_name(task),
                     metric_value(task, loss));
}

/// Its evaluations, and what the gradient misses where it did not converge everywhere.
std::string adjoint_text(const StepReport& r) {
  std::string text = fmt::format("+{:.0f}", r.adjoint_evaluations);
  if (r.adjoint_converged_share < 1)
    text += fmt::format(", adjoint {:.0f}% converged, residual {:.1e}",
                        std::floor(100 * r.adjoint_converged_share), r.adjoint_residual);
  return text;
}

std::string step_text(const TrainOptions& options, const StepReport& r, double tokens_per_second,
                      double left) {
  std::string text = fmt::format("step {}/{} loss {:.3f} {}", r.step, options.loop.limits.steps,
                                 r.loss, metric_text(options.task, r.loss));
  if (r.pretraining) {
    text += fmt::format(" pretraining depth {}", options.loop.stability.pretrain_depth);
  } else if (!options.model.is_explicit()) {
    text += fmt::format(" residual {:.1e} evaluations {:.0f}", r.residual, r.evaluations);
    if (r.adjoint_solves > 0) text += adjoint_text(r);
  }
  if (!r.finite) text += " NOT FINITE, step skipped";
  return text + fmt::format(" {} tok/s left {}", count(tokens_per_second), duration(left));
}

std::string evaluation_text(const Task& task, const Evaluation& e) {
  const std::string scores = e.answer != 0 || !e.scores_text.empty()
                                 ? answer_text(e)
                                 : fmt::format("loss {:.4f}, {} {:.4g}", e.loss, metric_name(task),
                                               metric_value(task, e.loss));
  return fmt::format("{}; {}; {} {}s in {}", scores, solve_text(e), e.tokens, unit_name(task),
                     duration(e.seconds));
}

RunObserver make_observer(const TrainOptions& options, const std::string& folder,
                          Progress& progress) {
  RunObserver observer;
  observer.started = [&options, &progress, folder](const Trainer& trainer, bool resumed) {
    const Model& model = trainer.model();
    progress.print(fmt::format(
        "{} '{}': {} parameters ({} without embedding), vocabulary {}, {} training {}s{}",
        resumed ? "resuming" : "training", folder, count(double(model.parameter_count(true))),
        count(double(model.parameter_count(false))), model.symbols().inputs,
        count(double(trainer.corpus().train.tokens.numel())), unit_name(options.task),
        resumed ? fmt::format(", from step {}", trainer.steps_done()) : ""));
  };
  observer.stepped = [&options, &progress](const StepReport& r, double tokens_per_second,
                                           double left) {
    const bool line = r.step % options.loop.limits.log_every == 0 || r.step == 1 || !r.finite;
    progress.show(double(r.step) / double(options.loop.limits.steps),
                  step_text(options, r, tokens_per_second, left), line);
  };
  observer.evaluating = [&progress](double share) {
    progress.show(share, fmt::format("evaluating {:.0f}%", 100 * share), false);
  };
  observer.evaluated = [&options, &progress](int64_t step, const Evaluation& e, bool best) {
    progress.print(fmt::format("step {} valid: {}{}", step, evaluation_text(options.task, e),
                               best ? "  (best)" : ""));
  };
  return observer;
}

void print_dry_run(const DryRun& run, const TrainOptions& options) {
  const auto solve = [](const char* name, const Report& report) {
    fmt::print("{:<12}{} evaluations, mean residual {:.1e}, converged {:.1f}% of rows\n", name,
               report.evaluations, report.mean_residual(),
               std::floor(1000 * report.converged_share()) / 10);
  };
  fmt::print("parameters  {}, {} without embedding; vocabulary {}\n", run.parameters,
             run.parameters_without_embedding, run.vocabulary);
  if (options.model.is_explicit()) {
    fmt::print("levels      {}\n", options.model.depth.depth);
  } else {
    solve("forward", run.forward);
    if (run.adjoint.evaluations > 0) solve("backward", run.adjoint);
  }
  fmt::print("activations {:.1f} MB at their peak\n", double(run.activation_bytes) / 1e6);
  fmt::print("step        {} tokens in {:.1f} s, loss {:.3f}\n", run.tokens, run.seconds, run.loss);
}

/// What the command line says besides options of a run.
struct Arguments {
  std::string folder, config;
  bool resume = false, dry = false;
  Assignments flags;
  ProcessArguments processes;
};

/// What began the weights that the checkpoint has changes nothing of a run that goes on from it.
void check_goes_on(const std::string& folder, const TrainOptions& run, const Assignments& given) {
  if (!std::filesystem::exists(std::filesystem::path(folder) / "last.safetensors")) return;
  for (const OptionInfo& info : selected_options(run.model)) {
    const auto found = given.find(info.key);
    const bool begins =
        info.key == "init_std" || info.key == "embedding_init_std" || info.key == "halting_bias";
    if (!begins || found == given.end()) continue;
    // As a number: 0.10 is 0.1.
    TrainOptions changed = run;
    assign_options(changed, {*found});
    DEQ_CHECK(to_toml(selected_options(changed)) == to_toml(selected_options(run)),
              "{} = {}: the weights of run '{}' began with {}, and it goes on from them; expected "
              "a new run with it",
              dashed(info.key), found->second, folder, info.value);
  }
}

/// The run's own options where it goes on, which rank 0 reads, then those of file and flags. For so
/// many processes.
TrainOptions options_of(const Arguments& arguments, ProcessGroup& group, int64_t processes) {
  TrainOptions options;
  if (arguments.resume) {
    std::string text;
    together(group, [&] {
      if (!group.first()) return;
      options = read_run_options(arguments.folder);
      Places places;
      check_goes_on(arguments.folder, options,
                    given_options(arguments.config, arguments.flags, places));
      text = to_toml(selected_options(options));
    });
    text = broadcast_text(group, text);
    if (!group.first()) assign_toml(options, text, "config.toml");
  }
  together(group, [&] {
    Places places;
    Assignments given = given_options(arguments.config, arguments.flags, places);
    // As many parts as there are processes to share them, unless the user or the run says.
    if (processes > 1 && !arguments.resume) given.emplace("shards", std::to_string(processes));
    assign_options(options, given, places);
    settle(options, given);
    check_shards(options, processes);
  });
  if (!options.data.empty())
    options.data = std::filesystem::absolute(options.data).lexically_normal().string();
  return options;
}

int train_with(const TrainOptions& options, const Arguments& arguments,
               const std::shared_ptr<ProcessGroup>& group) {
  Progress progress;
  const RunResult result =
      run_training(options, arguments.folder, arguments.resume,
                   make_observer(options, arguments.folder, progress), interrupt_flag(), group);
  leave(*group);
  if (group->first()) {
    progress.print(fmt::format("stopped after {} steps and {}: {}", result.steps,
                               duration(result.seconds), result.why));
    progress.print(result.test
                       ? fmt::format("test: {}", evaluation_text(options.task, *result.test))
                       : fmt::format("go on with: deq train {} --resume", arguments.folder));
  }
  return result.test ? 0 : kInterrupted;
}

}  // namespace

int train(int argc, char** argv) {
  CLI::App app("Trains a language model, or on a task, into a run folder.", "deq train");
  Arguments arguments;
  app.add_option("RUN", arguments.folder,
                 "the run folder: config.toml, metrics.jsonl, checkpoints, vocabulary");
  app.add_option("--config", arguments.config, "TOML file with options by the names of the flags");
  app.add_flag("--resume", arguments.resume,
               "go on from the run's last checkpoint; options given now replace the run's");
  app.add_flag("--dry-run", arguments.dry,
               "one step on made-up tokens, without RUN: parameters, memory, evaluations");
  add_process_options(app, arguments.processes);
  TrainOptions defaults;
  add_options(app, defaults, arguments.flags);
  use_short_help(app, {"config", "resume",  "dry-run",   "data",    "task",       "cell",
                       "depth",  "solver",  "max-steps", "rel-tol", "gradient",   "batch",
                       "length", "history", "steps",     "minutes", "eval-every", "optimizer",
                       "rate",   "seed",    "threads",   "device",  "processes"});
  if (const auto code = parse(app, argc, argv)) return *code;
  const std::string& folder = arguments.folder;
  DEQ_CHECK(arguments.dry == folder.empty(), "{}",
            arguments.dry
                ? fmt::format("--dry-run writes no run folder; expected no RUN, not '{}'", folder)
                : "RUN is missing; expected a folder, or --dry-run");
  const auto meeting = meeting_of(arguments.processes);
  const int64_t processes = meeting ? meeting->size : arguments.processes.count;
  DEQ_CHECK(!arguments.dry || processes == 1, "--dry-run with {} processes; expected one",
            processes);
  if (!meeting && processes > 1) {
    options_of(arguments, *alone(), processes);  // what is wrong with them is said once
    return start_processes(arguments.processes, argc, argv);
  }
  if (meeting) interrupt_flag();  // whoever is asked to stop takes the others with it from here on
  const auto group = join_group(meeting, arguments.processes);
  if (meeting && meeting->restarts > 0) arguments.resume = holds_run(*group, folder);
  const TrainOptions options = options_of(arguments, *group, processes);
  check_same_run(*group, options);
  use_share_of_threads(options.loop.run.threads, meeting);
  if (arguments.dry) {
    print_dry_run(dry_run(options), options);
    return 0;
  }
  return train_with(options, arguments, group);
}

}  // namespace deq::cli
