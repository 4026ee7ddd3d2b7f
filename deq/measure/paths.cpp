#include "deq/measure/paths.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "deq/measure/starts.h"
#include "deq/models/leaving.h"
#include "deq/train/score.h"

namespace deq {

using at::Tensor;

namespace {

/// What a solve ends in.
struct End {
  Tensor z;          // (B, ..., D)
  Tensor answer;     // (B, ...)
  Tensor right;      // (B) bool
  Tensor converged;  // (B) bool
};

End solved(const Model& model, const Map& f, const Batch& batch, const Tensor& z0,
           const TrialOptions& options) {
  StopRule stop = options.equilibrium.stop;
  stop.max_steps = options.limits.back();
  const Solution found = solve(f, z0, options.equilibrium.solver, stop);
  const Answers answers = answers_of(model, found.z, batch);
  return {found.z, answers.likeliest, answers.right.flatten(1).all(1),
          converged_samples(found.report, z0.size(0))};
}

void compare(PathRow& row, const End& found, const End& wanted) {
  const Tensor a = found.z.flatten(1).to(at::kDouble), b = wanted.z.flatten(1).to(at::kDouble);
  const auto norm = [](const Tensor& t) { return t.norm(2, {1}); };
  row.problems += a.size(0);
  row.same += found.answer.eq(wanted.answer).flatten(1).all(1).sum().item<double>();
  row.right += found.right.sum().item<double>();
  row.converged += found.converged.logical_and(wanted.converged).sum().item<double>();
  row.distance += (norm(a - b) / norm(b)).sum().item<double>();
  row.cosine += ((a * b).sum(1) / (norm(a) * norm(b))).sum().item<double>();
}

End rolled(const End& end) {
  return {end.z.roll(1, 0).contiguous(), end.answer.roll(1, 0), end.right.roll(1, 0),
          end.converged.roll(1, 0)};
}

/// The problems with their answers written in; undefined where they cannot hold them.
Tensor with_answers(const Batch& batch, const std::vector<int64_t>& as_input) {
  if (as_input.empty()) return {};
  const Tensor scored = batch.targets.ge(0);
  const Tensor symbols = at::tensor(as_input, at::kLong);
  const Tensor written =
      symbols.index_select(0, batch.targets.clamp_min(0).flatten()).view(batch.targets.sizes());
  const Tensor full = at::where(scored, written, batch.tokens);
  const Tensor given = at::isin(batch.tokens, symbols).logical_and(scored);
  const bool kept = full.eq(batch.tokens).logical_or(given.logical_not()).all().item<bool>();
  return kept && full.ge(0).all().item<bool>() ? full : Tensor();
}

}  // namespace

std::vector<PathRow> measure_paths(Model& model, const Split& split, const TrialOptions& options,
                                   const std::vector<int64_t>& as_input, int64_t seed, double std) {
  c10::NoGradGuard no_tape;
  std::vector<PathRow> rows{{"another problem's state"},
                            {"a random state"},
                            {"its own state"},
                            {"its solution's state"},
                            {"(not solved: another problem's state)"}};
  const StartOf random = random_start(seed, std, 0);
  for_each_batch(split, options.batch, {}, [&](const Batch& batch) {
    const Map f = leaving(model, batch.tokens);
    const Tensor zeros = zero_state(model, batch.tokens);
    const auto from = [&](const Tensor& z0) { return solved(model, f, batch, z0, options); };
    const End own = from(zeros);
    compare(rows[1], from(random(zeros, batch.first_lane)), own);
    compare(rows[2], from(own.z), own);
    if (const Tensor full = with_answers(batch, as_input); full.defined())
      compare(rows[3], from(solved(model, leaving(model, full), batch, zeros, options).z), own);
    if (zeros.size(0) < 2) return;
    const End other = rolled(own);
    compare(rows[0], from(other.z), own);
    compare(rows[4], other, own);
  });
  for (PathRow& row : rows) {
    for (double* sum : {&row.same, &row.right, &row.converged, &row.distance, &row.cosine})
      *sum /= double(row.problems);  // NaN of none
  }
  return rows;
}

}  // namespace deq
