#include "deq/cells/energy_groups.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/types.h>

#include "deq/base/error.h"
#include "deq/cells/groups.h"

namespace deq {

using at::Tensor;
using ops::Grouping;

namespace {

/// (P, P): what a mean over each place's group takes of every place, summed over groupings.
Tensor means_over(const std::vector<Grouping>& groupings, const Tensor& like) {
  const auto places = int64_t(groupings.front().group.size());
  Tensor all = at::zeros({places, places}, like.options().requires_grad(false));
  for (const Grouping& grouping : groupings) {
    const Tensor group = at::tensor(grouping.group, at::kLong).to(like.device());
    const Tensor same = group.unsqueeze(0).eq(group.unsqueeze(1)).logical_and(group.ge(0));
    all += same / same.sum(1, true).clamp_min(1);
  }
  return all;
}

}  // namespace

std::shared_ptr<EnergyTerm> EnergyGroups::make(const CellPlace& place, int64_t) const {
  return std::make_shared<EnergyGroupsTerm>(*this, place.symbols);
}

EnergyGroupsTerm::EnergyGroupsTerm(const EnergyGroups& options, int64_t symbols)
    : options_(options), symbols_(symbols) {
  validate(options, "EnergyGroups");
  check_smooth(options.activation);
  DEQ_CHECK(symbols >= 1, "energy groups: {} symbols; expected those that are answered among",
            symbols);
  const int64_t w = options.width, I = options.inner;
  inject_ = register_module("inject", std::make_shared<Linear>(w, I, true, false));
  state_ = register_module("state", std::make_shared<Linear>(w, I, false, false));
  place_ = register_module("place", std::make_shared<Linear>(w, I, false, false));
  for (size_t k = 0; k < count_of_kinds(options.groups); ++k)
    kinds_.push_back(
        register_module("kind" + std::to_string(k), std::make_shared<Linear>(w, I, false, false)));
  mix_ = register_module("mix", std::make_shared<Linear>(I, w, true, false));
  weight_ = register_parameter("weight", torch::zeros({w}));
}

void EnergyGroupsTerm::initialise(double std) {
  const c10::AutoGradMode no_tape(false);
  for (const auto& linear : {inject_, state_, place_, mix_}) linear->initialise(std);
  for (const auto& linear : kinds_) linear->initialise(std);
  weight_.normal_(0, std);
}

double EnergyGroupsTerm::operations(int64_t batch, int64_t positions) const {
  const double products = 3 + double(kinds_.size()), means = double(kinds_.size());
  const double states = double(batch * positions * symbols_) * double(options_.width);
  return 2 * states * (double(options_.inner) * products + double(positions) * means);
}

EnergyOf EnergyGroupsTerm::bind(const Tensor& x) {
  const int64_t B = x.size(0), S = symbols_, w = options_.width;
  const auto all = make_groupings(options_.groups, x.sizes().slice(1, size_t(x.dim()) - 2));
  std::vector<ops::AffineWeight> means;
  for (const auto& shared : all) means.push_back(ops::affine_weight(means_over(shared, x)));
  const int64_t P = x.numel() / std::max<int64_t>(1, B * S * w);
  const Tensor injected =
      by_place(x.reshape({B, P * S, w}), ops::affine_weight(inject_->weight()), inject_->bias());
  std::vector<Tensor> read{state_->weight(), place_->weight()};
  for (const auto& kind : kinds_) read.push_back(kind->weight());
  return [=, s = options_.activation, weights = ops::affine_weight(at::cat(read, 1)),
          mix = ops::affine_weight(mix_->weight()), bias = mix_->bias(),
          weight = weight_](const Tensor& z) {
    const Tensor states = z.reshape({B, P, S, w});
    const Tensor of_places = states.reshape({B, P, S * w}).transpose(1, 2);  // (B, S w, P)
    std::vector<Tensor> heard{states, states.mean(2, true).expand({B, P, S, w})};
    for (const ops::AffineWeight& mean : means)
      heard.push_back(by_place(of_places, mean, {}).transpose(1, 2).reshape({B, P, S, w}));
    const Tensor all_heard = at::cat(heard, 3).reshape({B, P * S, -1});
    const Tensor h = activated(s, by_place(all_heard, weights, {}) + injected);
    const Tensor units = activated(s, by_place(h, mix, bias)) * weight;
    return (0.5 * z.reshape({B, P * S, w}).square() + units).flatten(1).sum(1);
  };
}

}  // namespace deq
