#include "deq/cells/energy_attention.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/types.h>

#include <cmath>

#include "deq/base/error.h"
#include "deq/cells/transformer.h"

namespace deq {

using at::Tensor;

namespace {

/// (P, width) of a sequence's places, or of a grid's, half by row and half by column.
Tensor sines(at::IntArrayRef extents, int64_t width, const at::TensorOptions& options) {
  const auto along = [&](int64_t count, int64_t features) {
    const Tensor k = at::arange(features / 2, options);
    return sinusoids(0, count, at::pow(10000.0, k * (-2.0 / double(features))));
  };
  if (extents.size() == 1) return along(extents[0], width);
  const int64_t H = extents[0], W = extents[1], half = width / 2;
  const Tensor rows = along(H, half).unsqueeze(1).expand({H, W, half});
  const Tensor columns = along(W, half).unsqueeze(0).expand({H, W, half});
  return at::cat({rows, columns}, 2).reshape({H * W, width});
}

}  // namespace

std::shared_ptr<EnergyTerm> EnergyAttention::make(const CellPlace&, int64_t) const {
  return std::make_shared<EnergyAttentionTerm>(*this);
}

EnergyAttentionTerm::EnergyAttentionTerm(const EnergyAttention& options) : options_(options) {
  validate(options, "EnergyAttention");
  check_smooth(options.activation);
  const int64_t w = options.width, I = options.inner;
  DEQ_CHECK(w % options.heads == 0 && w % 4 == 0,
            "cell-of-width = {}; expected a multiple of cell-of-heads = {} and of 4", w,
            options.heads);
  const auto square = [&] { return std::make_shared<Linear>(w, w, false, false); };
  query_ = register_module("query", square());
  key_ = register_module("key", square());
  query_place_ = register_module("query_place", square());
  key_place_ = register_module("key_place", square());
  state_ = register_module("state", std::make_shared<Linear>(w, I, false, false));
  inject_ = register_module("inject", std::make_shared<Linear>(w, I, true, false));
  mix_ = register_module("mix", std::make_shared<Linear>(I, w, true, false));
  weight_ = register_parameter("weight", torch::zeros({w}));
}

void EnergyAttentionTerm::initialise(double std) {
  const c10::AutoGradMode no_tape(false);
  for (const auto& linear : {query_, key_, query_place_, key_place_, state_, inject_, mix_})
    linear->initialise(std);
  weight_.normal_(0, std);
}

double EnergyAttentionTerm::operations(int64_t batch, int64_t positions) const {
  const double places = double(batch * positions), w = double(options_.width);
  return 2 * places * w * (2 * w + double(positions) + 2 * double(options_.inner));
}

EnergyOf EnergyAttentionTerm::bind(const Tensor& x) {
  const int64_t B = x.size(0), w = options_.width, N = options_.heads, d = w / N;
  const Tensor places =
      sines(x.sizes().slice(1, size_t(x.dim()) - 2), w, x.options().requires_grad(false))
          .unsqueeze(0);
  const int64_t P = places.size(1);
  const Tensor injected =
      by_place(x.reshape({B, P, w}), ops::affine_weight(inject_->weight()), inject_->bias());
  const auto at_places = [&](const Linear& linear) {
    return by_place(places, ops::affine_weight(linear.weight()), {}).expand({B, P, w});
  };
  return [=, s = options_.activation, query = ops::affine_weight(query_->weight()),
          key = ops::affine_weight(key_->weight()), query_place = at_places(*query_place_),
          key_place = at_places(*key_place_), state = ops::affine_weight(state_->weight()),
          mix = ops::affine_weight(mix_->weight()), bias = mix_->bias(),
          weight = weight_](const Tensor& whole) {
    const Tensor z = whole.reshape({B, P, w});
    const Tensor y = z / (1 + z.square().mean(-1, true)).sqrt();
    const auto heads = [&](const Tensor& t) { return t.reshape({B, P, N, d}).transpose(1, 2); };
    const Tensor q = heads(by_place(y, query, {}) + query_place);
    const Tensor k = heads(by_place(y, key, {}) + key_place);
    const double scale = std::sqrt(double(d));
    const Tensor found = at::matmul(q / scale, k.transpose(2, 3)).logsumexp({-1});  // (B, N, P)
    const Tensor h = activated(s, by_place(z, state, {}) + injected);
    const Tensor units = activated(s, by_place(h, mix, bias)) * weight;
    return (0.5 * z.square() + units).flatten(1).sum(1) - scale * found.flatten(1).sum(1);
  };
}

}  // namespace deq
