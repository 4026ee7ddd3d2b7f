#include "deq/train/answers.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <c10/core/GradMode.h>

#include <cmath>
#include <limits>

#include "deq/base/threads.h"
#include "deq/data/random.h"
#include "deq/data/sequences.h"

namespace deq {

using at::Tensor;

namespace {

constexpr double kInfinite = std::numeric_limits<double>::infinity();

/// State number `start` of a problem, which depends on nothing but its size, the number and the
/// seed. Undefined of number 0: the layer's own.
Tensor start_of(const Model& model, const Tensor& problem, const StartsOptions& from,
                int64_t start) {
  if (start == 0) return {};
  return random_state(model.state_shape(problem), from.start_std,
                      random_stream({from.start_seed, start})())
      .to(model.device());
}

Answered solve_from(Model& model, const Tensor& problem, const AnswerOptions& options,
                    int64_t start) {
  c10::NoGradGuard no_tape;
  ForwardOptions how;
  how.equilibrium = for_evaluation(options.equilibrium);
  how.subsequence = options.subsequence;
  how.z0 = start_of(model, problem, options.from, start);
  const LayerOutput output = model.forward(problem, {}, how);
  const auto [best, likeliest] = model.log_probabilities(output.z).max(-1);
  Answered found;
  found.answer = likeliest.masked_fill(best.isfinite().logical_not(), -1).squeeze(0).to(at::kCPU);
  const double worst = model.is_explicit() ? kInfinite : output.report.worst_residual();
  found.residual = std::isfinite(worst) ? worst : kInfinite;
  found.converged = output.report.converged();
  found.evaluations = output.report.evaluations;
  found.start = start;
  return found;
}

}  // namespace

Tensor random_state(at::IntArrayRef shape, double std, uint64_t seed) {
  return at::randn(shape, at::make_generator<at::CPUGeneratorImpl>(seed), at::kFloat).mul_(std);
}

Answered answer_problem(Model& model, const Tensor& problem, const AnswerOptions& options) {
  validate(options, "Answer");
  DEQ_CHECK(!model.is_explicit() || options.from.starts == 1,
            "starts = {}: an explicit network has no residual by which to choose; expected 1",
            options.from.starts);
  DEQ_CHECK(!model.is_training(), "answers: the model is in training mode; expected evaluation's");
  const Tensor one = problem.unsqueeze(0);
  Answered best = solve_from(model, one, options, 0);
  for (int64_t start = 1; start < options.from.starts; ++start) {
    Answered found = solve_from(model, one, options, start);
    found.evaluations += best.evaluations;
    if (found.residual < best.residual)
      best = std::move(found);
    else
      best.evaluations = found.evaluations;
  }
  return best;
}

std::vector<OnTheWay> answer_along(Model& model, const Tensor& problem,
                                   const AnswerOptions& options, int64_t start) {
  std::vector<OnTheWay> way;
  if (model.is_explicit()) return way;
  AnswerOptions until = options;
  const int64_t most = options.equilibrium.stop.max_steps;
  for (int64_t steps = 1; steps < most; steps *= 2) {
    until.equilibrium.stop.max_steps = steps;
    Answered found = solve_from(model, problem.unsqueeze(0), until, start);
    if (found.converged) break;
    way.push_back({steps, std::move(found)});
  }
  return way;
}

std::vector<Judged> judge(Model& model, const Split& split, const AnswerOptions& options,
                          const std::function<void(double)>& progress) {
  DEQ_CHECK(split.sequences(), "judge: a text; expected problems that stand alone");
  SequenceEvaluationStream stream(split, 1);
  std::vector<Judged> judged;
  const FreeThreads threads;
  while (const auto batch = stream.next()) {
    look_for_free_threads();
    const Answered found = answer_problem(model, batch->tokens[0], options);
    Tensor wanted = batch->targets[0], answer = found.answer;
    if (batch->answer != kEveryPosition) {  // the end of a sequence holds it
      const int64_t first = wanted.size(0) - batch->answer;
      wanted = wanted.narrow(0, first, batch->answer);
      answer = answer.narrow(0, first, batch->answer);
    }
    const bool right = answer.eq(wanted).logical_or(wanted.lt(0)).all().item<bool>();
    judged.push_back({right, found.residual, found.converged, found.evaluations,
                      batch->tokens[0].sizes().vec()});
    if (progress) progress(double(judged.size()) / double(split.tokens.size(0)));
  }
  return judged;
}

}  // namespace deq
