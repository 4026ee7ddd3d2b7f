#include "deq/measure/paths.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <map>

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

/// Problems of one extent, side by side, and what their solves from zeros end in.
struct Solved {
  Batch batch;
  End own;
};

/// By extent, in order: what batches they are in changes nothing.
std::map<std::vector<int64_t>, std::vector<Solved>> by_extent(const std::vector<Solved>& all) {
  std::map<std::vector<int64_t>, std::vector<Solved>> found;
  for (const Solved& one : all) found[one.batch.tokens.sizes().slice(1).vec()].push_back(one);
  return found;
}

/// Of each problem what the one before it ends in; of the first the last.
End rolled(const std::vector<Solved>& alike) {
  const auto part = [&](Tensor End::*member) {
    std::vector<Tensor> parts;
    for (const Solved& one : alike) parts.push_back(one.own.*member);
    return at::cat(parts).roll(1, 0);
  };
  return {part(&End::z), part(&End::answer), part(&End::right), part(&End::converged)};
}

End rows_of(const End& end, int64_t first, int64_t count) {
  const auto part = [&](const Tensor& t) { return t.narrow(0, first, count).contiguous(); };
  return {part(end.z), part(end.answer), part(end.right), part(end.converged)};
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
  std::vector<Solved> all;
  bool holds = true;  // every problem can hold its answer
  for_each_batch(split, options.batch, {}, [&](const Batch& batch) {
    const Map f = leaving(model, batch.tokens);
    const Tensor zeros = zero_state(model, batch.tokens);
    const auto from = [&](const Tensor& z0) { return solved(model, f, batch, z0, options); };
    const End own = from(zeros);
    compare(rows[1], from(random(zeros, batch.first_lane)), own);
    compare(rows[2], from(own.z), own);
    holds = holds && with_answers(batch, as_input).defined();
    all.push_back({batch, own});
  });
  for (const auto& [batch, own] : all) {
    if (!holds) break;
    const Map full = leaving(model, with_answers(batch, as_input));
    const End solution = solved(model, full, batch, zero_state(model, batch.tokens), options);
    compare(rows[3], solved(model, leaving(model, batch.tokens), batch, solution.z, options), own);
  }
  for (const auto& [extent, alike] : by_extent(all)) {
    const End others = rolled(alike);
    if (others.z.size(0) < 2) continue;
    int64_t first = 0;
    for (const auto& [batch, own] : alike) {
      const End other = rows_of(others, first, own.z.size(0));
      first += own.z.size(0);
      compare(rows[0], solved(model, leaving(model, batch.tokens), batch, other.z, options), own);
      compare(rows[4], other, own);
    }
  }
  for (PathRow& row : rows) {
    for (double* sum : {&row.same, &row.right, &row.converged, &row.distance, &row.cosine})
      *sum /= double(row.problems);  // NaN of none
  }
  return rows;
}

}  // namespace deq
