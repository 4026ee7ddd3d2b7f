#include "deq/measure/paths.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "deq/measure/leaving.h"
#include "deq/measure/starts.h"
#include "deq/train/score.h"

namespace deq {

using at::Tensor;

namespace {

/// What a solve ends in.
struct End {
  Tensor z;          // (B, ..., D)
  Tensor answer;     // (B, ...)
  Tensor converged;  // (B) bool
};

End solved(const Model& model, const Map& f, const Batch& batch, const Tensor& z0,
           const TrialOptions& options) {
  StopRule stop = options.equilibrium.stop;
  stop.max_steps = options.limits.back();
  const Solution found = solve(f, z0, options.equilibrium.solver, stop);
  return {found.z, answers_of(model, found.z, batch).likeliest,
          converged_samples(found.report, z0.size(0))};
}

void compare(PathRow& row, const End& found, const End& wanted) {
  const Tensor a = found.z.flatten(1).to(at::kDouble), b = wanted.z.flatten(1).to(at::kDouble);
  const auto norm = [](const Tensor& t) { return t.norm(2, {1}); };
  row.problems += a.size(0);
  row.same += found.answer.eq(wanted.answer).flatten(1).all(1).sum().item<double>();
  row.converged += found.converged.logical_and(wanted.converged).sum().item<double>();
  row.distance += (norm(a - b) / norm(b)).sum().item<double>();
  row.cosine += ((a * b).sum(1) / (norm(a) * norm(b))).sum().item<double>();
}

End rolled(const End& end) {
  return {end.z.roll(1, 0).contiguous(), end.answer.roll(1, 0), end.converged.roll(1, 0)};
}

}  // namespace

std::vector<PathRow> measure_paths(Model& model, const Split& split, const TrialOptions& options,
                                   int64_t seed, double std) {
  c10::NoGradGuard no_tape;
  std::vector<PathRow> rows{{"another problem's state"},
                            {"a random state"},
                            {"its own state"},
                            {"(not solved: another problem's state)"}};
  const StartOf random = random_start(seed, std, 0);
  for_each_batch(split, options.batch, {}, [&](const Batch& batch) {
    const Map f = leaving(model, batch.tokens);
    const Tensor zeros = zero_state(model, batch.tokens);
    const auto from = [&](const Tensor& z0) { return solved(model, f, batch, z0, options); };
    const End own = from(zeros);
    compare(rows[1], from(random(zeros, batch.first_lane)), own);
    compare(rows[2], from(own.z), own);
    if (zeros.size(0) < 2) return;
    const End other = rolled(own);
    compare(rows[0], from(other.z), own);
    compare(rows[3], other, own);
  });
  for (PathRow& row : rows) {
    for (double* sum : {&row.same, &row.converged, &row.distance, &row.cosine})
      *sum /= double(row.problems);  // NaN of none
  }
  return rows;
}

}  // namespace deq
