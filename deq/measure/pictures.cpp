#include "deq/measure/pictures.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>

#include "deq/models/leaving.h"
#include "deq/solvers/limits.h"
#include "deq/train/score.h"

namespace deq {

using at::Tensor;

namespace {

constexpr int64_t kMostPositions = 4096;

std::vector<int64_t> marks_up_to(int64_t limit) {
  std::vector<int64_t> marks{1};
  for (int64_t power = 2; power < limit; power *= 2) {
    marks.push_back(power);
    if (power + power / 2 < limit) marks.push_back(power + power / 2);
  }
  if (marks.back() != limit) marks.push_back(limit);
  return marks;
}

template <class T>
std::vector<T> listed(const Tensor& values, at::ScalarType type) {
  const Tensor flat = values.reshape({-1}).to(at::kCPU, type).contiguous();
  return {flat.data_ptr<T>(), flat.data_ptr<T>() + flat.numel()};
}

/// Symbols of problems, and those of answers behind them where these have a vocabulary of their
/// own.
std::vector<std::string> all_symbols(const TrainedModel& run, bool own_answers) {
  std::vector<std::string> all;
  for (int64_t id = 0; id < run.vocabulary.size(); ++id) all.push_back(run.vocabulary.token(id));
  for (int64_t id = 0; own_answers && id < run.answers.size(); ++id)
    all.push_back(run.answers.token(id));
  return all;
}

/// Ids of answers as places in all_symbols, for every place; -1 where there is none.
std::vector<int64_t> placed(const Tensor& answers, const Tensor& like, int64_t first) {
  Tensor all = at::full_like(like, -1);
  const int64_t held = answers.size(0);
  all.narrow(0, all.size(0) - held, held).copy_(at::where(answers.ge(0), answers + first, answers));
  return listed<int64_t>(all, at::kLong);
}

std::string title_of(int64_t problem, const Trial& trial) {
  return fmt::format("problem {}: {}, {}", problem, trial.converged ? "converged" : "not converged",
                     trial.right ? "right" : "wrong");
}

}  // namespace

std::vector<ProblemPicture> draw_problems(const TrainedModel& run, const Split& split,
                                          const TrialOptions& how, const std::vector<Trial>& trials,
                                          const std::vector<int64_t>& problems) {
  c10::NoGradGuard no_tape;
  std::vector<ProblemPicture> pictures;
  if (problems.empty() || split.tokens[0].numel() > kMostPositions) return pictures;
  Model& model = *run.model;
  const Tensor chosen = at::tensor(problems, at::kLong);
  Split part = split;
  for (Tensor* tensor : {&part.tokens, &part.targets, &part.extents}) {
    if (tensor->defined()) *tensor = tensor->index_select(0, chosen);
  }
  const bool own_answers = run.answers.fingerprint() != run.vocabulary.fingerprint();
  const int64_t first_answer = own_answers ? run.vocabulary.size() : 0;
  const std::vector<std::string> symbols = all_symbols(run, own_answers);
  const std::vector<int64_t> marks = marks_up_to(how.limits.back());
  for_each_batch(part, how.batch, {}, [&](const Batch& batch) {
    const size_t first = pictures.size();
    for (int64_t b = 0; b < batch.tokens.size(0); ++b) {
      const int64_t problem = problems[size_t(batch.first_lane + b)];
      const Tensor tokens = batch.tokens[b];
      pictures.push_back({.title = title_of(problem, trials[size_t(problem)]),
                          .rows = tokens.dim() == 2 ? tokens.size(0) : 1,
                          .columns = tokens.size(-1),
                          .symbols = symbols,
                          .problem = listed<int64_t>(tokens, at::kLong),
                          .wanted = placed(batch.targets[b], tokens, first_answer)});
    }
    const Map f = leaving(model, batch.tokens);
    solve_at_limits(
        f, zero_state(model, batch.tokens), how.equilibrium.solver, how.equilibrium.stop, marks,
        [&](const AtLimit& at) {
          const Tensor& z = at.solution.z;
          const Tensor answers = answers_of(model, z, batch).likeliest.to(at::kCPU);
          const StateResiduals residuals = residuals_of(z, f(z));
          for (int64_t b = 0; b < z.size(0); ++b) {
            auto& frames = pictures[first + size_t(b)].frames;
            frames.push_back({.steps = at.max_steps,
                              .residual = residuals.samples[b].item<double>(),
                              .answer = placed(answers[b], batch.tokens[b], first_answer),
                              .residuals = listed<double>(residuals.positions[b], at::kDouble)});
          }
        });
  });
  return pictures;
}

}  // namespace deq
