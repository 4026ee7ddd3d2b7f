#include "deq/cells/energy_patterns.h"

#include <ATen/ATen.h>

namespace deq {

using at::Tensor;

std::shared_ptr<EnergyTerm> EnergyPatterns::make(const CellPlace&, int64_t) const {
  return std::make_shared<EnergyPatternsTerm>(*this);
}

EnergyPatternsTerm::EnergyPatternsTerm(const EnergyPatterns& options) : options_(options) {
  validate(options, "EnergyPatterns");
  const int64_t w = options.width;
  inject_ = register_module("inject", std::make_shared<Linear>(w, w, false, false));
  patterns_ =
      register_module("patterns", std::make_shared<Linear>(w, options.patterns, false, false));
}

void EnergyPatternsTerm::initialise(double std) {
  for (const auto& linear : {inject_, patterns_}) linear->initialise(std);
}

double EnergyPatternsTerm::operations(int64_t batch, int64_t positions) const {
  return 2.0 * double(batch * positions) * double(options_.width * options_.patterns);
}

EnergyOf EnergyPatternsTerm::bind(const Tensor& x) {
  return [field = by_place(x, ops::affine_weight(inject_->weight()), {}),
          patterns = ops::affine_weight(patterns_->weight()),
          beta = options_.beta](const Tensor& z) {
    const Tensor scores = beta * by_place(z, patterns, {});
    const Tensor of_places = (0.5 * z.square() - field * z).sum(-1) - scores.logsumexp({-1}) / beta;
    return of_places.flatten(1).sum(1);
  };
}

}  // namespace deq
