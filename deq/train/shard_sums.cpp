#include "deq/train/shard_sums.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstring>

namespace deq {

using at::Tensor;

void ShardSums::add(const Pass& pass, double rows) {
  loss += pass.loss;
  if (pass.jacobian) {
    ++jacobian_estimates;
    jacobian += rows * *pass.jacobian;
  }
  rest += rows * pass.rest.value_or(0);
  halting += rows * pass.halting.value_or(0);
  halting_steps += rows * pass.halting_steps;
  residual += rows * pass.forward.mean_residual();
  converged_share += rows * pass.forward.converged_share();
  evaluations += rows * double(pass.forward.evaluations);
  if (!pass.adjoint) return;
  ++adjoint_solves;
  adjoint_residual += rows * pass.adjoint->mean_residual();
  adjoint_converged_share += rows * pass.adjoint->converged_share();
  adjoint_evaluations += rows * double(pass.adjoint->evaluations);
  // Its best iterate may be finite, and would pass for a gradient.
  if (pass.adjoint->count(Reason::NonFinite) > 0) ++not_finite;
}

namespace {

constexpr int64_t kNumbers = sizeof(ShardSums) / sizeof(double);

/// Of all shards, in order.
std::vector<ShardSums> all_of(const Shards& shards, const std::vector<ShardSums>& own) {
  if (!shards.group().several()) return own;
  const Tensor held = at::empty({int64_t(own.size()), kNumbers}, at::kDouble);
  std::memcpy(held.data_ptr(), own.data(), held.nbytes());
  const Tensor all = shards.group().gather(held).contiguous();
  std::vector<ShardSums> sums(size_t(shards.count()));
  std::memcpy(static_cast<void*>(sums.data()), all.data_ptr(), all.nbytes());
  return sums;
}

/// The mean over the processes of what each waited, as a share of the slowest.
double waited(const Shards& shards, const std::vector<ShardSums>& all) {
  const size_t each = shards.own().size();
  double slowest = 0, sum = 0;
  for (size_t first = 0; first < all.size(); first += each) {
    double seconds = 0;
    for (size_t i = first; i < first + each; ++i) seconds += all[i].seconds;
    slowest = std::max(slowest, seconds);
    sum += seconds;
  }
  return slowest > 0 ? 1 - sum / double(all.size() / each) / slowest : 0;
}

}  // namespace

void add_shards(const Shards& shards, const std::vector<ShardSums>& own, StepReport& report) {
  const std::vector<ShardSums> all = all_of(shards, own);
  double estimates = 0, solves = 0;
  for (const ShardSums& sums : all) {
    report.loss += sums.loss;
    report.jacobian += sums.jacobian;
    report.rest += sums.rest;
    report.halting += sums.halting;
    report.halting_steps += sums.halting_steps;
    report.residual += sums.residual;
    report.converged_share += sums.converged_share;
    report.evaluations += sums.evaluations;
    report.adjoint_residual += sums.adjoint_residual;
    report.adjoint_converged_share += sums.adjoint_converged_share;
    report.adjoint_evaluations += sums.adjoint_evaluations;
    estimates = std::max(estimates, sums.jacobian_estimates);
    solves = std::max(solves, sums.adjoint_solves);
    if (sums.not_finite > 0) report.finite = false;
  }
  report.jacobian_estimates += int64_t(estimates);
  report.adjoint_solves += int64_t(solves);
  report.waited += waited(shards, all);
}

void finish(StepReport& report, int64_t batches, int64_t descents) {
  const double share = 1.0 / double(batches);
  report.gradient_norm /= double(descents);
  report.waited /= double(descents);
  for (double* mean : {&report.loss, &report.rest, &report.halting, &report.halting_steps,
                       &report.residual, &report.converged_share, &report.evaluations})
    *mean *= share;
  if (report.jacobian_estimates > 0) report.jacobian /= double(report.jacobian_estimates);
  if (report.adjoint_solves == 0) return;
  for (double* mean :
       {&report.adjoint_residual, &report.adjoint_converged_share, &report.adjoint_evaluations})
    *mean /= double(report.adjoint_solves);
}

}  // namespace deq
