#include "deq/train/evaluate.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <chrono>
#include <cmath>

#include "deq/base/threads.h"
#include "deq/data/readers.h"
#include "deq/train/evaluated.h"

namespace deq {
namespace {

/// Evaluation mode for a scope, then the mode that was.
class EvaluationMode {
 public:
  explicit EvaluationMode(Model& model) : model_(model), training_(model.is_training()) {
    model.eval();
  }
  ~EvaluationMode() { model_.train(training_); }

 private:
  Model& model_;
  bool training_;
};

ForwardOptions forward_options(const EquilibriumOptions& equilibrium,
                               const EvaluationOptions& options, bool carries_history) {
  ForwardOptions how;
  how.equilibrium = for_evaluation(equilibrium);
  how.history = carries_history ? options.history : 0;
  how.subsequence = options.subsequence;
  return how;
}

/// The first pieces of a text, (S, length); fewer than `count` where there are no more.
at::Tensor first_pieces(const at::Tensor& tokens, int64_t count, int64_t length) {
  DEQ_CHECK(tokens.size(0) >= length,
            "text of {} tokens; expected at least {}, what eval-length asks for", tokens.size(0),
            length);
  const int64_t S = std::min(count, tokens.size(0) / length);
  return tokens.narrow(0, 0, S * length).reshape({S, length});
}

void keep_worst(double& worst, double value) {  // NaN is the worst
  if (std::isnan(value) || value > worst) worst = value;
}

}  // namespace

KnownSegments first_segments(Model& model, const Split& split, int64_t count, int64_t length,
                             const ForwardOptions& how) {
  if (split.sequences()) {
    const int64_t S = std::min(count, split.tokens.size(0));
    return {split.tokens.narrow(0, 0, S).to(at::kLong),
            split.targets.narrow(0, 0, S).to(at::kLong),
            {}};
  }
  const at::Tensor pieces = first_pieces(split.tokens, count, 2 * length + 1);
  c10::NoGradGuard no_tape;
  KnownSegments found;
  ForwardOptions before = how;
  before.history = length;
  found.histories = model.forward(pieces.narrow(1, 0, length), {}, before).histories;
  found.tokens = pieces.narrow(1, length, length);
  found.targets = pieces.narrow(1, length + 1, length);
  return found;
}

Evaluation evaluate(Model& model, const Split& split, const EquilibriumOptions& equilibrium,
                    const EvaluationOptions& options, const std::function<void(double)>& progress,
                    const Shards& shards) {
  validate(options, "Evaluation");
  c10::NoGradGuard no_tape;
  const EvaluationMode mode(model);
  const auto start = std::chrono::steady_clock::now();
  EvaluationReader reader(
      split, {.lanes = options.lanes, .batch = options.batch, .length = options.length});
  const ForwardOptions how = forward_options(equilibrium, options, !split.sequences());
  Evaluation result;
  result.depth = model.options().depth.depth;
  std::vector<Histories> histories(shards.own().size());
  AnswerScore answers;
  const Scoring* scoring = split.scoring.get();
  at::Tensor scores;
  double loss = 0, residual = 0, converged = 0, rows = 0, solves = 0, problems = 0;
  if (model.halting()->halts()) {
    DEQ_CHECK(split.sequences(),
              "halting = {}: a text's positions go on from each other; expected "
              "problems that stand alone, or none",
              model.halting().name());
    result.halting = model.halting().name();
  }
  const FreeThreads threads;
  while (const auto segment = reader.next()) {
    std::vector<Evaluated> own;
    for (size_t i = 0; i < histories.size(); ++i) {
      look_for_free_threads();
      own.push_back(
          evaluate_part(model, shards.part(*segment, shards.own()[i]), histories[i], how, scoring));
    }
    const Evaluated found = join(shards, own, *segment, scoring != nullptr);
    loss += found.nats.to(at::kDouble).sum().item<double>();
    if (segment->answer != 0) answers.add(found.answers);
    if (scoring) {
      const at::Tensor own = found.scores.sum(0);
      scores = scores.defined() ? scores + own : own;
    }
    result.tokens += found.count;
    const double positions = double(segment->targets.numel());
    residual += found.report.mean_residual() * positions;
    converged += found.report.converged_share() * positions;
    rows += positions;
    keep_worst(result.worst_residual, found.report.worst_residual());
    if (found.report.reason.defined())
      result.unconverged += found.report.reason.numel() - found.report.count(Reason::Converged);
    result.evaluations += double(found.report.evaluations);
    result.halting_steps += double(found.steps);
    result.halted_share += double(found.halted);
    problems += double(segment->tokens.size(0));
    ++solves;
    if (progress) progress(double(result.tokens) / double(reader.targets()));
  }
  result.loss = loss / double(result.tokens);
  result.mean_residual = residual / rows;
  result.converged_share = converged / rows;
  result.evaluations /= solves;
  result.halting_steps /= problems;
  result.halted_share /= problems;
  if (split.answer != 0) {
    result.answer = split.answer;
    result.answer_loss = answers.nats / double(answers.targets);
    result.right_share = double(answers.right) / double(answers.targets);
    result.exact_share = double(answers.exact) / double(split.tokens.size(0));
  }
  if (scoring) {
    result.scores = scoring->rows(scores, model.percents());
    result.scores_text = scoring->text(result.scores);
  }
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

std::vector<BeginningLoss> measure_beginnings(Model& model, const Split& split,
                                              const EquilibriumOptions& equilibrium,
                                              const EvaluationOptions& options, int64_t count) {
  validate(options, "Evaluation");
  DEQ_CHECK(!split.sequences(), "beginnings of whole sequences; expected a text");
  DEQ_CHECK(count >= 1, "{} beginnings; expected at least one", count);
  const int64_t T = options.length, last = split.tokens.size(0) - T - 1;
  DEQ_CHECK(last >= 0, "beginnings: a text of {} tokens; expected at least {}, eval-length and one",
            split.tokens.size(0), T + 1);
  c10::NoGradGuard no_tape;
  const EvaluationMode mode(model);
  const ForwardOptions how = forward_options(equilibrium, options, false);
  const FreeThreads threads;
  at::Tensor sums = at::zeros({T}, at::kDouble);
  for (int64_t done = 0; done < count; done += options.batch) {
    look_for_free_threads();
    std::vector<at::Tensor> texts;
    for (int64_t i = done; i < std::min(count, done + options.batch); ++i) {
      const int64_t start = count > 1 ? int64_t(double(last) * double(i) / double(count - 1)) : 0;
      texts.push_back(split.tokens.narrow(0, start, T + 1));
    }
    const at::Tensor text = at::stack(texts);  // (B, T + 1)
    const at::Tensor z = model.forward(text.narrow(1, 0, T), {}, how).z;
    sums += model.loss(z, text.narrow(1, 1, T)).to(at::kCPU, at::kDouble).sum(0);
  }
  std::vector<BeginningLoss> groups;
  for (const auto& [first, end] : {std::pair<int64_t, int64_t>(1, 1), {2, 8}, {9, 32}, {33, T}}) {
    if (first > T) break;
    const int64_t held = std::min(end, T) - first + 1;
    const double sum = sums.narrow(0, first - 1, held).sum().item<double>();
    groups.push_back({first, first + held - 1, sum / double(held * count)});
  }
  return groups;
}

double measure_leak(Model& model, const Split& split, const EquilibriumOptions& equilibrium,
                    const EvaluationOptions& options) {
  c10::NoGradGuard no_tape;
  const EvaluationMode mode(model);
  const at::Tensor segments =
      split.sequences()
          ? split.tokens.narrow(0, 0, std::min(options.lanes, split.tokens.size(0))).to(at::kLong)
          : first_pieces(split.tokens, options.lanes, options.length);
  const int64_t T = segments.size(1);
  DEQ_CHECK(T >= 2, "check-leak: {} of {} position; expected >= 2",
            split.sequences() ? "sequences" : "segments (eval-length)", T);
  const ForwardOptions how = forward_options(equilibrium, options, false);
  double leak = 0;
  for (int64_t s = 0; s < segments.size(0); ++s) {
    const at::Tensor tokens = segments.narrow(0, s, 1);  // (1, T)
    at::Tensor changed = tokens.clone();
    changed.select(1, T - 1).add_(1).remainder_(model.symbols().inputs);
    const at::Tensor a = model.forward(tokens, {}, how).z.narrow(1, 0, T - 1);
    const at::Tensor b = model.forward(changed, {}, how).z.narrow(1, 0, T - 1);
    keep_worst(leak, ((a - b).norm(2, {2}) / a.norm(2, {2})).max().item<double>());
  }
  return leak;
}

}  // namespace deq
