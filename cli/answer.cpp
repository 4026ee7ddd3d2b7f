// `deq answer RUN [FILE]`: answers problems, and says of each answer whether it is to be trusted.
#include <array>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/help.h"
#include "cli/options.h"
#include "cli/parse.h"
#include "cli/progress.h"
#include "cli/scores.h"
#include "cli/threads.h"
#include "cli/verdict.h"
#include "deq/base/printable.h"
#include "deq/files/files.h"
#include "deq/files/folder_lock.h"
#include "deq/measure/memory_tracks.h"
#include "deq/tasks/lines.h"

namespace deq::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr uint64_t kMostText = uint64_t(1) << 30;

struct AnswerCommandOptions {
  AnswerOptions how;
  ReadingOptions reading;

  static void fields(auto& self, auto&& field) {
    field("", self.how);
    field("", self.reading);
  }
};

/// How answers are printed.
struct Style {
  bool json = false, picture = false, along = false, quiet = false;
};

std::string standard_input() {
  std::string text;
  std::array<char, 1 << 16> part;
  while (const size_t count = std::fread(part.data(), 1, part.size(), stdin)) {
    text.append(part.data(), count);
    DEQ_CHECK(text.size() <= kMostText, "standard input: more than {} bytes; expected as many",
              kMostText);
  }
  return text;
}

void check_run(const TrainedModel& run) {
  const Task& task = run.options.task;
  DEQ_CHECK(!continues_text(task),
            "run '{}' is of task {}, a language model; expected one that answers problems, or deq "
            "generate",
            run.folder, task_name(task));
  const int64_t known = task->known_vocabulary();
  DEQ_CHECK(known == 0 || known == run.vocabulary.size(),
            "run '{}': task {} has {} symbols, vocab.txt {}; expected the same", run.folder,
            task_name(task), known, run.vocabulary.size());
}

void check_starts(const StartsOptions& from, const Assignments& given) {
  for (const char* key : {"start_std", "start_seed"})
    DEQ_CHECK(from.starts > 1 || !given.count(key),
              "{} = {}: nothing is drawn; expected starts >= 2 with it", dashed(key),
              given.at(key));
}

Json number(double value) { return std::isfinite(value) ? Json(value) : Json(); }

/// Prints the answers of one run's problems, one after the other, and counts them.
class Answers {
 public:
  Answers(const TrainedModel& run, const KnownTrust& known, const Style& style)
      : run_(run), known_(known), style_(style) {}

  /// `along` and `tracks` are shown where they are not empty.
  void print(const WrittenProblem& problem, const Answered& found,
             const std::vector<OnTheWay>& along, const std::vector<MemoryTrack>& tracks) {
    const Verdict verdict = judge_answer(run_, known_.trust, problem.tokens, found);
    ++problems_;
    trusted_ += verdict.trusted;
    invalid_ += verdict.invalid();
    untrained_ += !verdict.trained_size;
    style_.json ? print_json(problem, found, along, tracks, verdict)
                : print_text(problem.tokens, found, along, tracks, verdict);
    std::fflush(stdout);
  }

  void print_summary() const {
    if (!known_.not_kept.empty())
      fmt::print(stderr, "the threshold is not kept: {}\n", known_.not_kept);
    if (style_.quiet) return;
    if (known_.forgotten > 0)
      fmt::print(stderr, "thresholds of other weights are forgotten: {}\n", known_.forgotten);
    std::string text = fmt::format("trusted: {} of {}", trusted_, problems_);
    if (invalid_ > 0) text += fmt::format("; invalid: {}", invalid_);
    if (untrained_ > 0)
      text += fmt::format("; of sizes not trained on ({}): {}", sizes(), untrained_);
    fmt::print(stderr, "{}\n{}\n", text, describe(known_.trust));
  }

  bool all_trusted() const { return trusted_ == problems_; }

 private:
  std::string shown(const at::Tensor& problem, const at::Tensor& answer) const {
    return run_.options.task->show(
        {problem, answer, run_.vocabulary, run_.answers, style_.picture});
  }

  void print_one(const at::Tensor& problem, const Answered& found, const std::string& end) const {
    const std::string residual =
        std::isfinite(found.residual) ? fmt::format("{:.2e}", found.residual) : "-";
    fmt::print("{}{}{}\t{}\t{}\n{}", shown(problem, found.answer), style_.picture ? "\n" : "\t",
               residual, found.evaluations, end, style_.picture ? "\n" : "");
  }

  void print_text(const at::Tensor& problem, const Answered& found,
                  const std::vector<OnTheWay>& along, const std::vector<MemoryTrack>& tracks,
                  const Verdict& verdict) const {
    for (const MemoryTrack& track : tracks)
      fmt::print("{}\t{}\n", track.name, fmt::join(track.at, " "));
    for (const OnTheWay& one : along)
      print_one(problem, one.found, fmt::format("after {} steps", one.steps));
    print_one(problem, found, verdict.text);
  }

  void print_json(const WrittenProblem& problem, const Answered& found,
                  const std::vector<OnTheWay>& along, const std::vector<MemoryTrack>& tracks,
                  const Verdict& verdict) const {
    Json row{{"line", problem.line},
             {"answer", shown(problem.tokens, found.answer)},
             {"residual", number(found.residual)},
             {"evaluations", found.evaluations},
             {"converged", found.converged},
             {"trusted", verdict.trusted},
             {"valid", verdict.check ? Json(verdict.check->empty()) : Json()},
             {"verdict", verdict.text},
             {"size", problem.tokens.sizes().vec()},
             {"trained_size", verdict.trained_size},
             {"start", found.start}};
    for (const OnTheWay& one : along)
      row["along"].push_back({{"steps", one.steps},
                              {"answer", shown(problem.tokens, one.found.answer)},
                              {"residual", number(one.found.residual)}});
    for (const MemoryTrack& track : tracks) row["memory"][track.name] = track.at;
    fmt::print("{}\n", row.dump(-1, ' ', false, Json::error_handler_t::replace));
  }

  std::string sizes() const {
    const Trust& trust = known_.trust;
    const std::string least = fmt::format("{}", fmt::join(trust.smallest, " x ")),
                      most = fmt::format("{}", fmt::join(trust.largest, " x "));
    return least == most ? least : least + " to " + most;
  }

  const TrainedModel& run_;
  const KnownTrust& known_;
  const Style style_;
  int64_t problems_ = 0, trusted_ = 0, invalid_ = 0, untrained_ = 0;
};

KnownTrust known_trust(const TrainedModel& run, const AnswerOptions& how, const std::string& data,
                       const Style& style) {
  Progress progress;
  const auto show = [&](double share) {
    if (share == 0 && !style.quiet)
      fmt::print(stderr, "choosing a threshold on the validation split, once for trust.json\n");
    if (!style.json && !style.quiet)
      progress.show(share, fmt::format("choosing a threshold on valid {:.0f}%", 100 * share),
                    false);
  };
  KnownTrust known = trust_of(run, how, data, show);
  if (!known.unread.empty() && known.not_kept.empty())
    fmt::print(stderr, "{}; replaced by what is chosen now\n", known.unread);
  return known;
}

}  // namespace

int answer(int argc, char** argv) {
  CLI::App app(
      "Answers problems, each solved alone: its answer, the residual, evaluations of f, and "
      "whether "
      "it is to be trusted. Exit code 3 where an answer is not.",
      "deq answer");
  std::string folder, file = "-", data, checkpoint, device = "cpu";
  int64_t threads = 0;
  Style style;
  Assignments flags;
  app.add_option("RUN", folder, "run folder")->required();
  app.add_option("FILE", file, "problems, as their task shows them; -: standard input [-]");
  app.add_option("--data", data, "for the threshold: data in place of the run's");
  app.add_option("--checkpoint", checkpoint, "best or last [best]");
  app.add_option("--threads", threads, "threads; 0: all cores")->check(CLI::Range(0, 4096));
  app.add_option("--device", device, "cpu, cuda or cuda:N [cpu]");
  app.add_flag("--show", style.along,
               "the answer after 1, 2, 4, 8, ... steps too, and where heads of a memory stood");
  app.add_flag("--pretty", style.picture, "answers as pictures of several lines");
  app.add_flag("--json", style.json, "one JSON object a line");
  app.add_flag("--quiet", style.quiet, "only the answers, no summary");
  add_options(app, AnswerCommandOptions{}, flags, Defaults::Hidden);
  use_short_help(app, {"data", "checkpoint", "show", "pretty", "json", "quiet", "starts", "solver",
                       "max-steps", "rel-tol", "weight-type", "threads", "device"});
  app.footer("Defaults are those of the run.");
  if (const auto code = parse(app, argc, argv)) return *code;
  use_threads(threads);

  DEQ_CHECK(!style.json || !style.picture,
            "--pretty: no picture stands in an object of --json; expected one of the two");
  check_unlocked(folder);
  TrainedModel run = load_run(folder, checkpoint, device);
  check_run(run);
  AnswerCommandOptions options;
  options.how.equilibrium = run.options.equilibrium;
  options.how.subsequence = run.options.eval.subsequence;
  assign_options(options, flags);
  settle(options.how.equilibrium, run.options.model, flags);
  check_starts(options.how.from, flags);
  run.model->read_weights(options.reading);

  const bool piped = file == "-";
  const std::string text = piped ? standard_input() : read_file(file, kMostText),
                    source = piped ? "standard input" : file;
  check_text(text, source);
  const auto problems = run.options.task->read(text, source, run.vocabulary);
  const KnownTrust known = known_trust(run, options.how, data, style);
  Answers answers(run, known, style);
  for (const WrittenProblem& problem : problems) {
    const Answered found = answer_problem(*run.model, problem.tokens, options.how);
    answers.print(
        problem, found,
        style.along ? answer_along(*run.model, problem.tokens, options.how, found.start)
                    : std::vector<OnTheWay>(),
        style.along ? memory_tracks(*run.model, problem.tokens) : std::vector<MemoryTrack>());
  }
  answers.print_summary();
  return answers.all_trusted() ? 0 : kNotTrusted;
}

}  // namespace deq::cli
