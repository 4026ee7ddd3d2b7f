#include "deq/measure/trials.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <cmath>
#include <limits>
#include <optional>

#include "deq/base/threads.h"
#include "deq/data/sequences.h"
#include "deq/measure/measurement.h"
#include "deq/models/leaving.h"
#include "deq/solvers/limits.h"
#include "deq/train/halted.h"
#include "deq/train/score.h"

namespace deq {

using at::Tensor;

namespace {

constexpr double kInfinite = std::numeric_limits<double>::infinity();

/// part / whole as the solvers have it: nothing of nothing is nothing.
Tensor share(const Tensor& part, const Tensor& whole) {
  const Tensor none = part.eq(0).logical_and(whole.isfinite());
  return (part / whole).masked_fill(none, 0).nan_to_num(kInfinite, kInfinite, kInfinite);
}

/// FNV-1a over the symbols of each problem.
std::vector<uint64_t> hashes(const Tensor& symbols) {
  const Tensor flat = symbols.flatten(1).to(at::kCPU).contiguous();
  std::vector<uint64_t> found;
  for (int64_t b = 0; b < flat.size(0); ++b) {
    uint64_t hash = 0xcbf29ce484222325u;
    const auto* id = flat[b].data_ptr<int64_t>();
    for (int64_t i = 0; i < flat.size(1); ++i) hash = (hash ^ uint64_t(id[i])) * 0x100000001b3u;
    found.push_back(hash);
  }
  return found;
}

/// A report's numbers of each sample: rows of one sample stand together; one row is of all.
Tensor by_sample(const Tensor& rows, int64_t samples) {
  if (rows.numel() == 1) return rows.expand({samples, 1});
  return rows.view({samples, -1});
}

/// What the answers of some problems are, without what a solve says of them.
std::vector<Trial> judged(const Model& model, const Tensor& z, const Batch& batch) {
  const Answers answers = answers_of(model, z, batch);
  const Tensor right = answers.right.flatten(1).to(at::kCPU);
  Tensor scored = batch.targets.ge(0);
  if (batch.answer != kEveryPosition)
    scored = scored.narrow(1, scored.size(1) - batch.answer, batch.answer);
  const Tensor exact = right.all(1),
               places = right.logical_and(scored.flatten(1)).sum(1).to(at::kDouble) /
                        scored.flatten(1).sum(1);
  const std::vector<uint64_t> hash = hashes(answers.likeliest);
  std::vector<Trial> found(hash.size());
  for (size_t b = 0; b < found.size(); ++b) {
    const auto at = int64_t(b);
    found[b].right = found[b].best_right = exact[at].item<bool>();
    found[b].places = places[at].item<double>();
    found[b].answer = hash[b];
  }
  return found;
}

/// One limit of one batch. `f` is that of all its problems; with `rel_tol` it judges them, in place
/// of the report.
std::vector<Trial> at_limit(const Model& model, const Map& f, const Batch& batch, const AtLimit& at,
                            std::optional<double> rel_tol) {
  std::vector<Trial> found = judged(model, at.solution.z, batch);
  const auto samples = int64_t(found.size());
  const StateResiduals residuals = residuals_of(at.solution.z, f(at.solution.z));
  const Report& report = at.solution.report;
  const Tensor converged = converged_samples(report, samples);
  const Tensor steps = std::get<0>(by_sample(report.steps, samples).max(1));
  const Tensor best = answers_of(model, at.best, batch).right.flatten(1).all(1).to(at::kCPU);
  const Tensor energies =
      f.energy() ? f.energy()(at.solution.z).to(at::kCPU, at::kDouble) : Tensor();
  for (int64_t b = 0; b < samples; ++b) {
    Trial& trial = found[size_t(b)];
    trial.converged = converged[b].item<bool>();
    trial.residual = residuals.samples[b].item<double>();
    trial.worst = residuals.worst[b].item<double>();
    if (rel_tol) trial.converged = trial.residual <= *rel_tol;
    trial.best_right = best[b].item<bool>();
    trial.evaluations = at.beginning + steps[b].item<int64_t>();
    if (energies.defined()) trial.energy = energies[b].item<double>();
  }
  return found;
}

void append(std::vector<Trial>& all, const std::vector<Trial>& found) {
  all.insert(all.end(), found.begin(), found.end());
}

}  // namespace

void for_each_batch(const Split& split, int64_t batch, const std::function<void(double)>& progress,
                    const std::function<void(const Batch&)>& use) {
  SequenceEvaluationStream stream(split, batch);
  const FreeThreads threads;
  while (const auto next = stream.next()) {
    look_for_free_threads();
    use(*next);
    const double done = double(next->first_lane + next->tokens.size(0));
    if (progress) progress(done / double(split.tokens.size(0)));
  }
}

Tensor converged_samples(const Report& report, int64_t samples) {
  return by_sample(report.reason, samples).eq(int64_t(Reason::Converged)).all(1);
}

StateResiduals residuals_of(const Tensor& z, const Tensor& fz) {
  const Tensor g = (fz - z).to(at::kCPU, at::kDouble), f = fz.to(at::kCPU, at::kDouble);
  const auto by_position = [](const Tensor& t) { return t.norm(2, {-1}); };
  StateResiduals found;
  found.positions = share(by_position(g), by_position(f));
  found.samples = share(g.flatten(1).norm(2, {1}), f.flatten(1).norm(2, {1}));
  found.worst = std::get<0>(found.positions.flatten(1).max(1));
  return found;
}

Tensor zero_state(Model& model, const Tensor& tokens) {
  return at::zeros(model.state_shape(tokens),
                   model.parameters().front().options().requires_grad(false));
}

Trials try_problems(Model& model, const Split& split, const TrialOptions& options,
                    const StartOf& start, const std::function<void(double)>& progress) {
  c10::NoGradGuard no_tape;
  Trials found;
  found.limits = options.limits;
  found.at.resize(options.limits.size());
  found.seconds.assign(options.limits.size(), 0);
  for_each_batch(split, options.batch, progress, [&](const Batch& batch) {
    Map f;
    const double binding = seconds_of([&] { f = leaving(model, batch.tokens); });
    const Tensor zeros = zero_state(model, batch.tokens);
    const Tensor z0 = start ? start(zeros, batch.first_lane) : zeros;
    size_t limit = 0;
    const StopRule& stop = options.equilibrium.stop;
    const auto rel_tol = options.halting ? std::optional<double>(stop.rel_tol) : std::nullopt;
    const Map solved = options.halting ? options.halting(f) : f;
    solve_at_limits(solved, z0, options.equilibrium.solver, stop, options.limits,
                    [&](const AtLimit& at) {
                      append(found.at[limit], at_limit(model, f, batch, at, rel_tol));
                      found.seconds[limit++] += binding + at.seconds;
                    });
  });
  return found;
}

Trials try_halting(Model& model, const Split& split, const Halting& rule,
                   const EquilibriumOptions& equilibrium, int64_t batch,
                   const std::function<void(double)>& progress) {
  c10::NoGradGuard no_tape;
  ForwardOptions how;
  how.equilibrium = equilibrium;
  Trials found{{equilibrium.stop.max_steps}, {{}}, {0}};
  for_each_batch(split, batch, progress, [&](const Batch& part) {
    Halted ended;
    found.seconds[0] +=
        seconds_of([&] { ended = run_halting(model, part.tokens, rule, how, part.first_lane); });
    std::vector<Trial> trials = judged(model, ended.z, part);
    for (size_t b = 0; b < trials.size(); ++b) {
      const auto at = int64_t(b);
      trials[b].evaluations = ended.report.steps[at].item<int64_t>();
      trials[b].residual = trials[b].worst = ended.report.residual[at].item<double>();
      trials[b].converged = ended.report.reason[at].item<int64_t>() == int64_t(Reason::Converged);
    }
    append(found.at[0], trials);
  });
  return found;
}

Trials try_levels(Model& model, const Split& split, int64_t batch,
                  const std::function<void(double)>& progress) {
  c10::NoGradGuard no_tape;
  const int64_t depth = model.options().depth.depth;
  Trials found{{depth}, {{}}, {0}};
  for_each_batch(split, batch, progress, [&](const Batch& part) {
    Tensor z;
    found.seconds[0] += seconds_of([&] { z = model.forward(part.tokens, {}, {}).z; });
    std::vector<Trial> trials = judged(model, z, part);
    for (Trial& trial : trials) {
      trial.evaluations = depth;
      trial.residual = trial.worst = std::numeric_limits<double>::quiet_NaN();
    }
    append(found.at[0], trials);
  });
  return found;
}

}  // namespace deq
