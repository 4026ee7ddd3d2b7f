#include "deq/train/fill.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace deq {

using at::Tensor;

namespace {

std::vector<int64_t> places_of(const Tensor& text, int64_t hole) {
  const Tensor found = text.eq(hole).nonzero().flatten().contiguous();
  const auto* first = found.data_ptr<int64_t>();
  return {first, first + found.numel()};
}

/// One text's solves, each from the state that the one before left.
class Filling {
 public:
  Filling(Model& model, const Tensor& text, const FillOptions& options)
      : model_(model), options_(options), text_(text.unsqueeze(0).clone()) {
    found_.converged = true;
    how_.equilibrium = for_evaluation(options.equilibrium);
  }

  /// log p of every answer at each place, (L, answers).
  Tensor solve() {
    const LayerOutput output = model_.forward(text_, {}, how_);
    if (!model_.is_explicit()) how_.z0 = output.z;
    const double worst = model_.is_explicit() ? std::numeric_limits<double>::infinity()
                                              : output.report.worst_residual();
    const double residual = std::isfinite(worst) ? worst : std::numeric_limits<double>::infinity();
    found_.residual = std::max(found_.residual, residual);
    found_.converged = found_.converged && output.report.converged();
    found_.evaluations += output.report.evaluations;
    ++found_.solves;
    return model_.log_probabilities(output.z).squeeze(0).to(at::kCPU, at::kDouble);
  }

  FilledHole decided(const Tensor& log_probabilities, int64_t place) const {
    const Tensor own = log_probabilities[place];
    const int64_t count = std::min(options_.alternatives, own.size(0));
    const auto [best, answers] = own.topk(count);
    FilledHole hole{.place = place, .alternatives = {}, .solve = found_.solves - 1};
    for (int64_t k = 0; k < count; ++k)
      hole.alternatives.emplace_back(answers[k].item<int64_t>(), std::exp(best[k].item<double>()));
    return hole;
  }

  void put(int64_t place, int64_t input) { text_[0][place] = input; }
  Filled& found() { return found_; }

 private:
  Model& model_;
  const FillOptions& options_;
  Tensor text_;  // (1, L)
  ForwardOptions how_;
  Filled found_;
};

}  // namespace

Filled fill(Model& model, const Tensor& text, int64_t hole, const std::vector<int64_t>& as_input,
            const FillOptions& options) {
  validate(options, "Fill");
  DEQ_CHECK(!model.is_training(), "fill: the model is in training mode; expected evaluation's");
  std::vector<int64_t> open = places_of(text, hole);
  DEQ_CHECK(!open.empty(), "fill: a text of {} places without a hole; expected one at least",
            text.size(0));
  const c10::NoGradGuard no_tape;
  Filling filling(model, text, options);
  Filled& found = filling.found();
  found.answer = at::full_like(text, -1);
  int64_t again = std::min<int64_t>(options.refine, int64_t(open.size()) - 1);
  for (; !open.empty(); --again) {
    const Tensor log_probabilities = filling.solve();
    const Tensor surest = std::get<0>(log_probabilities.max(1));
    std::stable_sort(open.begin(), open.end(), [&](int64_t a, int64_t b) {
      return surest[a].item<double>() > surest[b].item<double>();
    });
    const auto count = int64_t(open.size());
    const int64_t now = (count + again) / (again + 1);  // the same share of each solve that is left
    for (int64_t k = 0; k < now; ++k) {
      const FilledHole one = filling.decided(log_probabilities, open[size_t(k)]);
      const auto [answer, probability] = one.alternatives.front();
      found.holes.push_back(one);
      if (!std::isfinite(probability)) continue;
      found.answer[one.place] = answer;
      filling.put(one.place, as_input.at(size_t(answer)));
    }
    open.erase(open.begin(), open.begin() + now);
  }
  std::sort(found.holes.begin(), found.holes.end(),
            [](const FilledHole& a, const FilledHole& b) { return a.place < b.place; });
  return found;
}

}  // namespace deq
