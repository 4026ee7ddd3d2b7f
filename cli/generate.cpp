// `deq generate RUN --prompt TEXT`: continues a text, one equilibrium per new token.
#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <random>

#include "cli/commands.h"
#include "cli/help.h"
#include "cli/interrupt.h"
#include "cli/options.h"
#include "cli/parse.h"
#include "cli/scores.h"
#include "cli/threads.h"
#include "deq/decode/generate_options.h"
#include "deq/decode/generator.h"
#include "deq/decode/reading.h"
#include "deq/models/language_model.h"
#include "deq/runs/run.h"

namespace deq::cli {
namespace {

void print_statistics(const GenerationReport& r, const Model& model, double seconds, int64_t seed) {
  if (r.tokens == 0) return;
  fmt::print(stderr, "{} tokens, {:.0f} per second", r.tokens, double(r.tokens) / seconds);
  const std::string prompt =
      r.prompt_tokens == 0
          ? ""
          : fmt::format(", prompt {:.1f}%", std::floor(1000 * r.prompt_converged_share) / 10);
  if (model.is_explicit()) {
    fmt::print(stderr, "; explicit network of {} levels", model.options().depth.depth);
  } else {
    fmt::print(stderr, ", {:.1f} evaluations each; converged: {} of {}{}; worst residual {:.1e}",
               double(r.evaluations) / double(r.tokens), r.converged, r.tokens, prompt,
               r.worst_residual);
  }
  fmt::print(stderr, "{}; seed {}\n", weight_type_text(model), seed);
}

/// Texts as they grow: a single one is printed at once, several at the end.
class Texts {
 public:
  Texts(const Vocabulary& vocabulary, const std::vector<std::string>& prompts,
        const std::vector<std::vector<int64_t>>& ids)
      : vocabulary_(vocabulary), texts_(prompts) {
    for (const auto& text : ids) before_.push_back(text.empty() ? -1 : text.back());
    if (texts_.size() == 1) show(texts_.front());
  }

  void add(size_t text, int64_t token) {
    const std::string piece = vocabulary_.decode_next(token, before_[text]);
    before_[text] = token;
    if (texts_.size() == 1) show(piece);
    texts_[text] += piece;
  }

  void finish() {
    if (texts_.size() == 1) return show("\n");
    for (size_t i = 0; i < texts_.size(); ++i) show((i > 0 ? "\n" : "") + texts_[i] + "\n");
  }

 private:
  static void show(const std::string& text) {
    fmt::print("{}", text);
    std::fflush(stdout);
  }

  const Vocabulary& vocabulary_;
  std::vector<std::string> texts_;
  std::vector<int64_t> before_;
};

/// What a text without a prompt begins with.
constexpr const char* kBeginning = "\n";

void check_beginning(const Vocabulary& vocabulary) {
  DEQ_CHECK(is_spaced(vocabulary.unit()) || vocabulary.find(kBeginning),
            "no prompt: a text begins behind the end of a line, and the text that this run was "
            "trained on has none; expected --prompt TEXT");
}

/// The tokens of every prompt; none of one that is empty where a cache goes before it.
std::vector<std::vector<int64_t>> tokens_of(const std::vector<std::string>& prompts,
                                            const Vocabulary& vocabulary, bool cached) {
  std::vector<std::vector<int64_t>> ids;
  for (const std::string& prompt : prompts) {
    if (cached && prompt.empty()) {
      ids.emplace_back();
      continue;
    }
    if (prompt.empty()) check_beginning(vocabulary);
    ids.push_back(vocabulary.encode(prompt.empty() ? kBeginning : prompt, "the prompt"));
    DEQ_CHECK(!ids.back().empty(), "the prompt '{}' has no token; expected at least one", prompt);
  }
  return ids;
}

}  // namespace

int generate(int argc, char** argv) {
  CLI::App app(
      "Continues a text. Each new token costs one solve of one position; earlier equilibria are "
      "kept.",
      "deq generate");
  std::string folder, checkpoint, cache, save_cache_as, device = "cpu";
  std::vector<std::string> prompts;
  int64_t threads = 0;
  bool quiet = false;
  Assignments flags;
  app.add_option("RUN", folder, "run folder")->required();
  app.add_option(
         "--prompt", prompts,
         "text to continue; none: the end of a line, or as many texts as the cache has; several: "
         "texts side by side")
      ->allow_extra_args(false);
  app.add_option("--cache", cache, "go on from these equilibria, the prompt behind them");
  app.add_option("--save-cache", save_cache_as, "leave the equilibria of the text in this file");
  app.add_option("--checkpoint", checkpoint, "best or last [best]");
  app.add_option("--threads", threads, "threads; 0: all cores")->check(CLI::Range(0, 4096));
  app.add_option("--device", device, "cpu, cuda or cuda:N [cpu]");
  app.add_flag("--quiet", quiet, "only the text, no statistics");
  add_options(app, GenerateOptions{}, flags, Defaults::Hidden);
  use_short_help(app, {"prompt", "tokens", "temperature", "top-k", "top-p", "greedy", "seed",
                       "history", "max-steps", "rel-tol", "weight-type", "cache", "save-cache",
                       "checkpoint", "threads", "device", "quiet"});
  app.footer(fmt::format("Defaults are those of the run, but for max-steps: {} at least.",
                         kGenerationSteps));
  if (const auto code = parse(app, argc, argv)) return *code;
  use_threads(threads);

  TrainedModel run = load_run(folder, checkpoint, device);
  DEQ_CHECK(continues_text(run.options.task),
            "run '{}' is of task {}, which answers whole sequences; expected a text to continue",
            folder, task_name(run.options.task));
  GenerateOptions options;
  options.equilibrium = run.options.equilibrium;
  int64_t& max_steps = options.equilibrium.stop.max_steps;
  max_steps = std::max(max_steps, kGenerationSteps);
  assign_options(options, flags);
  check_sampling(options.sampling);
  settle(options.equilibrium, run.options.model, flags);
  check_draws(options.sampling, run.vocabulary.size(), flags);
  const PromptReading reading =
      reading_of(run.options.eval.length, run.options.eval.history, options.history);
  if (options.seed == 0) options.seed = int64_t(std::random_device{}());

  run.model->read_weights(options.reading);

  EquilibriumCache kept;
  if (!cache.empty()) kept = load_cache(cache, weights_fingerprint(language_model(*run.model)));
  if (prompts.empty()) prompts.resize(size_t(cache.empty() ? 1 : kept.log_probabilities.size(0)));
  const auto ids = tokens_of(prompts, run.vocabulary, !cache.empty());
  const std::atomic<bool>& interrupted = interrupt_flag();
  TextGenerator generator(language_model(*run.model), options.equilibrium, reading.history,
                          int64_t(prompts.size()), reading.length);
  if (!cache.empty()) generator.restore(std::move(kept));
  std::vector<at::Generator> random;
  for (size_t i = 0; i < prompts.size(); ++i)
    random.push_back(at::make_generator<at::CPUGeneratorImpl>(uint64_t(options.seed) + i));
  Texts texts(run.vocabulary, prompts, ids);
  generator.feed_all(ids);
  const auto start = std::chrono::steady_clock::now();
  generator.generate(std::vector<int64_t>(prompts.size(), options.tokens), options.sampling, random,
                     [&](int64_t text, int64_t token) {
                       texts.add(size_t(text), token);
                       return !interrupted;
                     });
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  texts.finish();
  if (!save_cache_as.empty())
    save_cache(save_cache_as, generator.cache(), weights_fingerprint(language_model(*run.model)));
  if (!quiet) print_statistics(generator.report(), *run.model, seconds, options.seed);
  return interrupted ? kInterrupted : 0;
}

}  // namespace deq::cli
