// `deq generate RUN --prompt TEXT`: continues a text, one equilibrium per new token.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>

#include <chrono>
#include <cmath>
#include <random>

#include "cli/commands.h"
#include "cli/interrupt.h"
#include "cli/options.h"
#include "cli/parse.h"
#include "deq/decode/generator.h"
#include "deq/train/run.h"

namespace deq::cli {
namespace {

struct GenerateOptions {
  int64_t tokens = 100;
  int64_t history = 0;
  int64_t seed = 0;
  SamplingOptions sampling;
  EquilibriumOptions equilibrium;

  static void fields(auto& self, auto&& field) {
    field("tokens", self.tokens, "tokens to generate", at_least(1));
    field("history", self.history,
          "earlier positions that are seen; 0: length + history of the run", between(0, 1 << 30));
    field("seed", self.seed, "of the draws; 0: another one each time", at_least(0));
    field("", self.sampling);
    field("", self.equilibrium);
  }
};

void print_statistics(const GenerationReport& r, const LanguageModel& model, double seconds,
                      int64_t seed) {
  if (r.tokens == 0) return;
  fmt::print(stderr, "{} tokens, {:.0f} per second", r.tokens, double(r.tokens) / seconds);
  if (model.is_explicit()) {
    fmt::print(stderr, "; explicit network of {} levels", model.options().depth.depth);
  } else {
    fmt::print(stderr,
               ", {:.1f} evaluations each; converged: {} of {}, prompt {:.1f}%; worst residual "
               "{:.1e}",
               double(r.evaluations) / double(r.tokens), r.converged, r.tokens,
               std::floor(1000 * r.prompt_converged_share) / 10, r.worst_residual);
  }
  fmt::print(stderr, "; seed {}\n", seed);
}

}  // namespace

int generate(int argc, char** argv) {
  CLI::App app(
      "Continues a text. Each new token costs one solve of one position; earlier equilibria are "
      "kept.",
      "deq generate");
  std::string folder, prompt, checkpoint;
  int64_t threads = 0;
  bool quiet = false;
  Assignments flags;
  app.add_option("RUN", folder, "run folder")->required();
  app.add_option("--prompt", prompt, "text to continue; none: the end of a line");
  app.add_option("--checkpoint", checkpoint, "best or last [best]");
  app.add_option("--threads", threads, "threads; 0: all cores")->check(CLI::Range(0, 4096));
  app.add_flag("--quiet", quiet, "only the text, no statistics");
  add_options(app, GenerateOptions{}, flags, Defaults::Hidden);
  app.footer("Defaults are those of the run.");
  if (const auto code = parse(app, argc, argv)) return *code;
  if (threads > 0) at::set_num_threads(int(threads));

  TrainedModel run = load_run(folder, checkpoint);
  DEQ_CHECK(continues_text(run.options.task),
            "run '{}' is of task {}, which answers whole sequences; expected a text to continue",
            folder, task_name(run.options.task));
  GenerateOptions options;
  options.equilibrium = run.options.equilibrium;
  const BatchOptions& trained = run.options.loop.batch;
  options.history = trained.length + trained.history;
  const int64_t standard_history = options.history;
  assign_options(options, flags);
  settle(options.equilibrium, run.options.model, flags);
  if (options.history == 0) options.history = standard_history;
  if (options.seed == 0) options.seed = int64_t(std::random_device{}());

  std::vector<int64_t> ids = run.vocabulary.encode(prompt.empty() ? "\n" : prompt, "the prompt");
  DEQ_CHECK(!ids.empty(), "the prompt '{}' has no token; expected at least one", prompt);
  const std::atomic<bool>& interrupted = interrupt_flag();
  TextGenerator generator(*run.model, options.equilibrium, options.history);
  at::Generator random = at::make_generator<at::CPUGeneratorImpl>(uint64_t(options.seed));
  fmt::print("{}", prompt);
  std::fflush(stdout);
  generator.feed(ids);
  const auto start = std::chrono::steady_clock::now();
  int64_t before = ids.back();
  for (int64_t k = 0; k < options.tokens && !interrupted; ++k) {
    const int64_t token = generator.next(options.sampling, random);
    fmt::print("{}", run.vocabulary.decode_next(token, before));
    std::fflush(stdout);
    before = token;
  }
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  fmt::print("\n");
  std::fflush(stdout);
  if (!quiet) print_statistics(generator.report(), *run.model, seconds, options.seed);
  return interrupted ? kInterrupted : 0;
}

}  // namespace deq::cli
