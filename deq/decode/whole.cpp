#include "deq/decode/whole.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "deq/base/threads.h"

namespace deq {

using at::Tensor;

WholeText::WholeText(Model& model, const EquilibriumOptions& equilibrium,
                     const WholeOptions& options)
    : model_(model), options_(options) {
  DEQ_CHECK(options.length >= 2, "a text in pieces of {} positions; expected 2 or more",
            options.length);
  DEQ_CHECK(options.hole >= 0 && options.hole < model.symbols().inputs,
            "hole = {}; expected an input, 0 to {}", options.hole, model.symbols().inputs - 1);
  DEQ_CHECK(!model.is_training(), "the model is in training mode; expected evaluation's");
  how_.equilibrium = for_evaluation(equilibrium);
}

void WholeText::feed(const std::vector<int64_t>& inputs) {
  text_.insert(text_.end(), inputs.begin(), inputs.end());
}

/// States of positions `first` and on: what they held; a new position has that of the hole before.
Tensor WholeText::start(int64_t first, int64_t count) const {
  const int64_t skipped = first - first_, held = z_.size(1) - skipped;
  if (skipped < 0 || held < 1) return {};
  const Tensor kept = z_.narrow(1, skipped, std::min(held, count));
  const int64_t fresh = count - kept.size(1);
  return at::cat({kept, z_.narrow(1, z_.size(1) - 1, 1).expand({-1, fresh, -1})}, 1);
}

Tensor WholeText::next() {
  const c10::NoGradGuard no_tape;
  const FreeThreads threads;
  const auto known = int64_t(text_.size());
  const int64_t first = std::max<int64_t>(0, known - options_.length + 1);
  std::vector<int64_t> seen(text_.begin() + first, text_.end());
  seen.push_back(options_.hole);
  const auto count = int64_t(seen.size());
  how_.z0 = options_.warm && z_.defined() ? start(first, count) : Tensor();
  const LayerOutput output = model_.forward(at::tensor(seen, at::kLong).unsqueeze(0), {}, how_);
  if (!model_.is_explicit()) z_ = output.z;
  first_ = first;
  ++report_.solves;
  report_.converged += output.report.converged() ? 1 : 0;
  report_.evaluations += output.report.evaluations;
  report_.positions += count;
  constexpr double kInfinite = std::numeric_limits<double>::infinity();
  const double worst = model_.is_explicit() ? kInfinite : output.report.worst_residual();
  report_.worst_residual =
      std::max(report_.worst_residual, std::isfinite(worst) ? worst : kInfinite);
  return model_.log_probabilities(output.z)[0][count - 1].to(at::kCPU, at::kDouble);
}

}  // namespace deq
