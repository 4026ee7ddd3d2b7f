#include "deq/cells/transformer.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "deq/cells/dropout.h"
#include "deq/cells/transformer_weights.h"
#include "deq/ops/affine.h"
#include "deq/ops/attention_kernel.h"

namespace deq {

using at::Tensor;

std::shared_ptr<Cell> Transformer::make(const CellPlace& place) const {
  return std::make_shared<TransformerCell>(*this, place.injection);
}

/// The tensors that the weights in force follow from.
std::vector<Tensor> TransformerCell::what_it_is() const {
  std::vector<Tensor> all = parameters();
  all.push_back(frequency_);
  return all;
}

bool TransformerCell::read_weights(WeightType type) {
  weight_type_ = type;
  fixed_ = std::make_shared<Kept<Fixed>>(what_it_is());
  return true;
}

TransformerCell::InForce TransformerCell::weights_in_force(WeightType type) const {
  InForce found;
  found.block = ops::block_weights({.qkv = qkv_->weight(),
                                    .output = output_->weight(),
                                    .output_bias = output_->bias(),
                                    .inner = inner_->weight(),
                                    .inner_bias = inner_->bias(),
                                    .outer = outer_->weight(),
                                    .outer_bias = outer_->bias()},
                                   type);
  const int64_t D = options_.width;
  if (inject_) found.inject = ops::affine_weight(inject_->weight());
  found.positions = ops::affine_weight(positions_->weight());
  found.keys_and_values = ops::affine_weight(found.block.qkv.narrow(0, D, 2 * D));
  return found;
}

TransformerCell::Fixed TransformerCell::fixed() const {
  return {weights_in_force(weight_type_), {}};
}

/// Projected positions for `positions` queries behind `past` ones.
Tensor TransformerCell::positions(const InForce& weights, int64_t positions, int64_t past,
                                  const Tensor& mask) const {
  const Tensor waves = sinusoids(past + positions - 1,
                                 ops::relative_rows(positions, past, options_.causal), frequency_);
  return ops::affine(masked(waves, mask).unsqueeze(0), weights.positions, {}).squeeze(0);
}

/// Of a grid: distances of rows, then of columns, each in its half of the sinusoids.
Tensor TransformerCell::grid_positions(const InForce& weights, int64_t rows, int64_t columns,
                                       const Tensor& mask) const {
  const Tensor frequency = frequency_.slice(0, 0, frequency_.size(0), 2);
  const auto half = [&](int64_t side) { return sinusoids(side - 1, 2 * side - 1, frequency); };
  const int64_t D = options_.width;
  const Tensor waves = at::cat({at::constant_pad_nd(half(rows), {0, D / 2}),
                                at::constant_pad_nd(half(columns), {D / 2, 0})});
  return ops::affine(masked(waves, mask).unsqueeze(0), weights.positions, {}).squeeze(0);
}

/// Of distances that only grow, the nearer ones are the last rows of any longer list.
Tensor TransformerCell::fixed_positions(Fixed& fixed, int64_t count, int64_t past) const {
  if (!options_.causal) return positions(fixed.weights, count, past, {});
  const int64_t rows = past + count;
  if (!fixed.r.defined() || fixed.r.size(0) < rows) {
    int64_t longer = 64;
    while (longer < rows) longer *= 2;
    fixed.r = positions(fixed.weights, longer, 0, {});
  }
  return fixed.r.narrow(0, fixed.r.size(0) - rows, rows);
}

TransformerCell::TransformerCell(const Transformer& options, bool injection) : options_(options) {
  validate(options, "Transformer");
  const int64_t D = options.width, H = options.heads;
  DEQ_CHECK(D % H == 0, "Transformer.width = {}; expected a multiple of heads = {}", D, H);
  DEQ_CHECK(D % 2 == 0, "Transformer.width = {}; expected an even number (sines and cosines)", D);
  DEQ_CHECK(
      options.dimensions == 1 || (D % 4 == 0 && !options.causal && options.window == 0),
      "cell-dimensions = 2 with cell-width = {}, cell-causal = {}, cell-window = {}; expected "
      "a multiple of 4, false and 0: places of a grid have no order",
      D, options.causal, options.window);
  const bool normed = options.weight_norm;
  if (injection)
    inject_ = register_module("inject", std::make_shared<Linear>(D, 3 * D, true, false));
  qkv_ = register_module("qkv", std::make_shared<Linear>(D, 3 * D, false, normed));
  positions_ = register_module("positions", std::make_shared<Linear>(D, D, false, normed));
  output_ = register_module("output", std::make_shared<Linear>(D, D, true, normed));
  inner_ = register_module("inner", std::make_shared<Linear>(D, options.inner, true, normed));
  outer_ = register_module("outer", std::make_shared<Linear>(options.inner, D, true, normed));
  content_bias_ = register_parameter("content_bias", torch::zeros({H, D / H}));
  position_bias_ = register_parameter("position_bias", torch::zeros({H, D / H}));
  const Tensor exponent = -torch::arange(0, D, 2) / double(D);
  frequency_ = register_buffer("frequency", at::pow(10000.0, exponent));
  fixed_ = std::make_shared<Kept<Fixed>>(what_it_is());
  initialise(0.02);
}

void TransformerCell::initialise(double std) {
  c10::AutoGradMode no_tape(false);
  if (inject_) inject_->initialise(std);
  for (const auto& linear : {qkv_, positions_, output_, inner_, outer_}) linear->initialise(std);
  content_bias_.normal_(0, std);
  position_bias_.normal_(0, std);
}

double TransformerCell::operations(int64_t batch, int64_t positions, int64_t past) const {
  const ops::AttentionSpan span{positions, past, options_.causal, options_.window};
  double pairs = 0;  // of a query and a key that it sees: content, position, value
  for (int64_t i = 0; i < positions; ++i) pairs += double(span.last(i) - span.first(i));
  const double D = double(options_.width), I = double(options_.inner);
  return 2 * double(batch) * (double(positions) * (4 * D * D + 2 * D * I) + 3 * pairs * D);
}

/// What all levels share: f's context but for its past and its injection.
struct TransformerCell::Shared {
  ops::BlockContext block;
  ops::AffineWeight weight;  // of keys and values
  Tensor injected;           // (B, T, 3 D) or undefined
  uint64_t contents = 0;     // as in History::weights

  /// Keys and values of states z, each (B, n, D); `base` (B, n, 2 D) is their injection.
  std::vector<Tensor> keys_and_values(const Tensor& z, const Tensor& base) const {
    const int64_t D = z.size(2);
    const Tensor x = block.norm == NormPlace::Post ? z : at::layer_norm(z, {D});
    return ops::affine(x, weight, base).chunk(2, 2);
  }
};

/// f at some positions of the segment, behind the keys and values of those before them.
struct TransformerCell::Level {
  std::shared_ptr<const Shared> shared;
  ops::TransformerBlock f;

  Level(std::shared_ptr<const Shared> shared, ops::BlockContext context)
      : shared(std::move(shared)), f(std::move(context)) {}

  /// Keys and values of the past and of the first positions, which hold z (B, n, D).
  History extended(const Tensor& z, int64_t length) const {
    const int64_t D = z.size(2);
    const ops::BlockContext& c = f.context();
    const auto kv = shared->keys_and_values(
        z,
        c.injected.defined() ? c.injected.narrow(1, 0, z.size(1)).narrow(2, D, 2 * D) : Tensor());
    return {.k = latest(c.attention.past_k, kv[0], length),
            .v = latest(c.attention.past_v, kv[1], length),
            .hidden = hidden_after(z.size(1), length),
            .weights = shared->contents};
  }

  /// What is hidden of the latest `length` positions, the first `count` of the segment among them.
  std::vector<int64_t> hidden_after(int64_t count, int64_t length) const {
    const ops::AttentionContext& a = f.context().attention;
    const int64_t all = (a.past_k.defined() ? a.past_k.size(1) : 0) + count;
    return still_hidden(a.hidden, all - std::min(all, length));
  }

  /// Positions first .. first + count - 1 of it, behind states `before`.
  Level part(const Tensor& before, int64_t first, int64_t count) const {
    ops::BlockContext c = f.context();
    if (c.injected.defined()) c.injected = c.injected.narrow(1, first, count);
    ops::AttentionContext& attention = c.attention;
    if (first > 0) {
      const History seen = extended(before, std::numeric_limits<int64_t>::max());
      attention.past_k = seen.k;
      attention.past_v = seen.v;
    }
    const int64_t keys = (attention.past_k.defined() ? attention.past_k.size(1) : 0) + count;
    attention.r = attention.r.narrow(0, attention.r.size(0) - keys, keys);
    if (attention.mask.defined())
      attention.mask = attention.mask.narrow(2, first, count).narrow(3, 0, keys);
    return {shared, std::move(c)};
  }
};

std::shared_ptr<const TransformerCell::Shared> TransformerCell::share(const Tensor& x, int64_t past,
                                                                      int64_t columns) {
  const int64_t B = x.size(0), T = x.size(1), D = options_.width;
  const double share = options_.dropout.hidden;
  auto s = std::make_shared<Shared>();
  ops::BlockContext& c = s->block;
  c.norm = options_.norm;
  c.view = {options_.heads, options_.causal, options_.window, float_scores_, columns};
  const auto places = [&](const InForce& in_force, const Tensor& mask) {
    return columns > 0 ? grid_positions(in_force, T / columns, columns, mask)
                       : positions(in_force, T, past, mask);
  };
  InForce weights;
  if (is_training() || c10::GradMode::is_enabled()) {
    weights = weights_in_force();
    c.attention.r = places(weights, dropout_mask({1, D}, share, is_training(), x));
  } else {
    fixed_->with([&] { return fixed(); },
                 [&](Fixed& made, uint64_t contents) {
                   weights = made.weights;
                   c.attention.r =
                       columns > 0 ? places(weights, {}) : fixed_positions(made, T, past);
                   s->contents = contents;
                 });
  }
  c.weights = weights.block;
  s->weight = weights.keys_and_values;
  if (inject_) s->injected = ops::affine(x, weights.inject, inject_->bias());
  c.attention.content_bias = content_bias_.reshape({D});
  c.attention.position_bias = position_bias_.reshape({D});
  c.attention.mask =
      dropout_mask({B, options_.heads, T, past + T}, options_.dropout.attention, is_training(), x);
  c.output_mask = dropout_mask({B, 1, D}, share, is_training(), x);
  c.inner_mask = dropout_mask({B, 1, options_.inner}, share, is_training(), x);
  c.outer_mask = dropout_mask({B, 1, D}, share, is_training(), x);
  return s;
}

/// Of keys and values of past inputs x, (B, M, 2 D): with the present weights, but held fixed like
/// the history itself.
Tensor TransformerCell::injection(const Tensor& x) const {
  if (!inject_) return {};
  c10::AutoGradMode no_tape(false);
  const int64_t D = options_.width;
  return ops::affine(x, ops::affine_weight(inject_->weight().narrow(0, D, 2 * D)),
                     inject_->bias().narrow(0, D, 2 * D));
}

/// The places of a grid, row by row, as a sequence without order.
std::vector<Bound> TransformerCell::bind_grids(const Tensor& x,
                                               const std::vector<History>& levels) {
  DEQ_CHECK(x.dim() == 4 && x.size(3) == options_.width,
            "TransformerCell: x has shape [{}]; expected (batch, rows, columns, {}), as "
            "cell-dimensions = 2 says",
            fmt::join(x.sizes(), ", "), options_.width);
  for (const History& history : levels)
    DEQ_CHECK(history.length() == 0,
              "TransformerCell: a history of {} positions; expected none: grids stand alone",
              history.length());
  const Tensor places = x.flatten(1, 2);  // (B, H W, D)
  const auto shared = share(places, 0, x.size(2));
  ops::BlockContext context = shared->block;
  context.injected = shared->injected;
  const ops::TransformerBlock f(std::move(context));
  std::vector<Bound> bound(levels.size());
  for (Bound& level : bound) {
    level.f = Map([f](const Tensor& z) { return f(z.flatten(1, 2)).view(z.sizes()); }, {});
    level.extend = [](const Tensor&, int64_t) { return History{}; };
  }
  return bound;
}

std::vector<Bound> TransformerCell::bind_levels(const Tensor& x,
                                                const std::vector<History>& levels) {
  if (options_.dimensions == 2) return bind_grids(x, levels);
  const int64_t D = options_.width;
  check_bound_shapes("TransformerCell", x, D, D, levels);
  const int64_t past = levels.front().length();
  const auto shared = share(x, past);
  std::vector<Bound> bound;
  for (const History& history : levels) {
    DEQ_CHECK(history.length() == past,
              "TransformerCell: histories of {} and {} positions; expected one length", past,
              history.length());
    check_weights("TransformerCell", history, shared->contents);
    DEQ_CHECK(!inject_ || past == 0 || history.k.defined() ||
                  (history.x.defined() && history.x.size(1) == past),
              "TransformerCell: a history of {} states; expected an input of each", past);
    ops::BlockContext context = shared->block;
    context.injected = shared->injected;
    if (past > 0) {
      const auto kv = history.k.defined()
                          ? std::vector<Tensor>{history.k, history.v}
                          : shared->keys_and_values(history.z, injection(history.x));
      context.attention.past_k = kv[0];
      context.attention.past_v = kv[1];
      context.attention.hidden = history.hidden;
    }
    const auto level = std::make_shared<const Level>(shared, std::move(context));
    Bound f;
    f.f = level->f.map();
    const bool fixed = !is_training() && !c10::GradMode::is_enabled();
    f.extend = [level, history, fixed, x = inject_ ? x.detach() : Tensor()](const Tensor& z,
                                                                            int64_t length) {
      if (length == 0) return History{};
      if (fixed) return level->extended(z, length);
      DEQ_CHECK(!history.k.defined(),
                "TransformerCell: a history of keys and values cannot go on with a tape; expected "
                "one of states and inputs");
      return History{latest(history.z, z, length),
                     x.defined() ? latest(history.x, x, length) : Tensor(),
                     {},
                     {},
                     level->hidden_after(z.size(1), length)};
    };
    if (options_.causal) {
      f.f.set_part([level](const Tensor& before, int64_t first, int64_t count) {
        return level->part(before, first, count).f.map();
      });
    }
    bound.push_back(std::move(f));
  }
  return bound;
}

}  // namespace deq
