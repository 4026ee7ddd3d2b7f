#include "deq/cells/trellisnet.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <optional>

#include "deq/cells/decoder.h"
#include "deq/cells/dropout.h"
#include "deq/ops/affine.h"

namespace deq {

using at::Tensor;

namespace {

/// `padded` (B, K - 1 + T, W) -> (B, T, K W): the K positions that each of T reads.
Tensor read_by(const Tensor& padded, int64_t kernel) {
  if (kernel == 1) return padded;
  const int64_t T = padded.size(1) - (kernel - 1);
  std::vector<Tensor> parts;
  for (int64_t k = 0; k < kernel; ++k) parts.push_back(padded.narrow(1, k, T));
  return at::cat(parts, 2);
}

/// A convolution's weight (out, W K) for features in the order of `read_by`, (out, K W).
Tensor by_tap(const Tensor& weight, int64_t kernel) {
  if (kernel == 1) return weight;
  return weight.view({weight.size(0), -1, kernel}).transpose(1, 2).reshape(weight.sizes());
}

/// The last `length` positions of `past` (B, M, W), the first one repeated where there are fewer,
/// zeros where there is none; `like` (B, T, W).
Tensor padding(const Tensor& past, int64_t length, const Tensor& like) {
  if (!past.defined() || past.size(1) == 0)
    return at::zeros({like.size(0), length, like.size(2)}, like.options().requires_grad(false));
  const int64_t held = std::min(length, past.size(1));
  const Tensor last = past.narrow(1, past.size(1) - held, held);
  if (held == length) return last;
  return at::cat({last.narrow(1, 0, 1).expand({-1, length - held, -1}), last}, 1);
}

}  // namespace

std::shared_ptr<Cell> TrellisNet::make(const CellPlace&) const {
  return std::make_shared<TrellisNetCell>(*this);
}

/// The weights in force, by tap.
struct TrellisNetCell::InForce {
  ops::AffineWeight inject;  // (4 H, K X)
  Tensor bias;               // (4 H)
  ops::TrellisWeight conv;
};

TrellisNetCell::TrellisNetCell(const TrellisNet& options) : options_(options) {
  validate(options, "TrellisNet");
  DEQ_CHECK(
      options.causal || options.kernel > 1,
      "cell-kernel = {} with cell-causal = false; expected 2 or more: nothing else is read ahead",
      options.kernel);
  const int64_t H = options.hidden + options.output, K = taps();
  const bool normed = options.weight_norm;
  inject_ =
      register_module("inject", std::make_shared<Linear>(K * input_width(), 4 * H, true, normed));
  conv_ = register_module("conv", std::make_shared<Linear>(K * H, 4 * H, true, normed));
  fixed_ = std::make_shared<Kept<InForce>>(parameters());
  initialise(0.02);
}

void TrellisNetCell::initialise(double std) {
  inject_->initialise(std);
  conv_->initialise(std);
}

void TrellisNetCell::forget(History& history, const std::vector<int64_t>& rows,
                            int64_t kept) const {
  if (kept > 0) return;
  history.z = emptied(history.z, rows);
  history.x = emptied(history.x, rows);
}

double TrellisNetCell::operations(int64_t batch, int64_t positions, int64_t) const {
  const double H = double(options_.hidden + options_.output);
  return 2 * double(batch * positions) * double(taps()) * H * 4 * H;
}

Tensor TrellisNetCell::output(const Tensor& z) const {
  return z.narrow(2, options_.hidden, options_.output);
}

bool TrellisNetCell::read_weights(WeightType type) {
  weight_type_ = type;
  fixed_ = std::make_shared<Kept<InForce>>(parameters());
  return true;
}

TrellisNetCell::InForce TrellisNetCell::weights_in_force(WeightType type) const {
  const int64_t K = taps();
  const double dropped = options_.dropout.weight;
  return {ops::affine_weight(by_tap(inject_->weight(dropped), K)), inject_->bias() + conv_->bias(),
          ops::trellis_weight(by_tap(conv_->weight(dropped), K), K, type)};
}

std::vector<Bound> TrellisNetCell::bind_levels(const Tensor& x,
                                               const std::vector<History>& levels) {
  check_bound_shapes("TrellisNetCell", x, input_width(), state_width(), levels);
  const int64_t B = x.size(0), K = options_.kernel, H = state_width() / 2;
  const int64_t P = past_states();
  const bool fixed = !is_training() && !c10::GradMode::is_enabled();
  uint64_t contents = 0;  // as in History::weights
  const InForce weights = fixed ? fixed_->with([&] { return weights_in_force(weight_type_); },
                                               [&](const InForce& kept, uint64_t of) {
                                                 contents = of;
                                                 return kept;
                                               })
                                : weights_in_force();
  const Tensor before = padding(levels.front().x, K - 1, x);
  Tensor seen = at::cat({before, x}, 1);
  if (ahead() > 0) seen = at::constant_pad_nd(seen, {0, 0, 0, ahead()});
  const Tensor injected = ops::affine(read_by(seen, taps()), weights.inject, weights.bias);
  const Tensor mask = dropout_mask({B, 1, H}, options_.dropout.hidden, is_training(), x);
  const Tensor kept_x = latest(before, x, K - 1);
  std::vector<Bound> bound;
  for (const History& history : levels) {
    check_weights("TrellisNetCell", history, contents);
    const Tensor state = at::zeros({B, 1, 2 * H}, x.options().requires_grad(false));
    const ops::TrellisStep level({.kernel = taps(),
                                  .dilation = options_.dilation,
                                  .ahead = ahead(),
                                  .weight = weights.conv,
                                  .injected = injected,
                                  .hidden_mask = mask,
                                  .past = padding(history.z, P, state)});
    Bound f;
    f.f = level.map();
    f.extend = [level, P, kept_x, contents](const Tensor& z, int64_t length) {
      if (length == 0) return History{};
      return History{.z = latest(level.context().past, z, P), .x = kept_x, .weights = contents};
    };
    if (options_.causal) {
      f.f.set_part([level, P](const Tensor& before, int64_t first, int64_t count) {
        ops::TrellisContext part = level.context();
        part.injected = part.injected.narrow(1, first, count);
        if (first > 0) part.past = latest(part.past, before, P);
        return ops::TrellisStep(std::move(part)).map();
      });
    }
    bound.push_back(std::move(f));
  }
  return bound;
}

/// One evaluation for all texts: the rows of a state and an injection of each.
class TrellisNetCell::Decoding : public Decoder {
 public:
  Decoding(TrellisNetCell& cell, const InForce& weights, uint64_t contents,
           const std::vector<History>& pasts, int64_t length, const InputOf& input)
      : cell_(cell),
        weights_(weights),
        contents_(contents),
        length_(length),
        input_(input),
        rounds_(pasts.size()) {
    for (const History& past : pasts) {
      check_weights("TrellisNetCell", past, contents);
      texts_.push_back({past, {}, {}, {}, {}});
    }
  }

  void enter(const std::vector<int64_t>& texts, const std::vector<int64_t>& tokens) override {
    c10::AutoGradMode no_tape(false);
    const int64_t K = cell_.options_.kernel, P = cell_.past_states();
    const Tensor x = input_(tokens);
    std::vector<Tensor> seen;
    for (size_t i = 0; i < texts.size(); ++i) {
      if (rounds_.due(texts[i])) check_contents();
      Text& text = texts_[size_t(texts[i])];
      text.x = x.narrow(0, int64_t(i), 1);
      text.before = padding(text.history.x, K - 1, text.x);
      text.past = padding(text.history.z, P, at::zeros({1, 1, cell_.state_width()}, x.options()));
      seen.push_back(at::cat({text.before, text.x}, 1));
    }
    const Tensor injected = ops::affine(read_by(at::cat(seen), K), weights_.inject, weights_.bias);
    for (size_t i = 0; i < texts.size(); ++i)
      texts_[size_t(texts[i])].injected = injected.narrow(0, int64_t(i), 1);
    open_.clear();
  }

  Tensor evaluate(const Tensor& z, const std::vector<int64_t>& done) override {
    std::vector<int64_t> open;
    for (size_t text = 0; text < texts_.size(); ++text) {
      if (done.empty() || done[text] == 0) open.push_back(int64_t(text));
    }
    if (open.empty()) return at::zeros_like(z);
    if (open != open_) bind(open);
    if (open.size() == texts_.size()) return (*f_)(z);
    const Tensor rows = at::tensor(open, at::kLong);
    return at::zeros_like(z).index_copy(0, rows, (*f_)(z.index_select(0, rows)));
  }

  void advance(const std::vector<int64_t>& texts, const Tensor& z) override {
    for (size_t i = 0; i < texts.size(); ++i) {
      Text& text = texts_[size_t(texts[i])];
      text.history = {};
      if (length_ == 0) continue;
      text.history.z = latest(text.past, z.narrow(0, int64_t(i), 1), cell_.past_states());
      text.history.x = latest(text.before, text.x, cell_.options_.kernel - 1);
      text.history.weights = contents_;
    }
  }

  std::vector<History> pasts() override {
    check_contents();
    std::vector<History> found;
    for (const Text& text : texts_) found.push_back(text.history);
    return found;
  }

 private:
  struct Text {
    History history;
    Tensor x, before, past, injected;  // of its position: (1, 1, X), (1, K - 1, X), ...
  };

  void bind(const std::vector<int64_t>& open) {
    std::vector<Tensor> injected, past;
    for (const int64_t text : open) {
      injected.push_back(texts_[size_t(text)].injected);
      past.push_back(texts_[size_t(text)].past);
    }
    f_.emplace(ops::TrellisContext{.kernel = cell_.options_.kernel,
                                   .dilation = cell_.options_.dilation,
                                   .weight = weights_.conv,
                                   .injected = at::cat(injected),
                                   .past = at::cat(past)});
    open_ = open;
  }

  void check_contents() {
    cell_.fixed_->with([&] { return cell_.weights_in_force(cell_.weight_type_); },
                       [&](const InForce&, uint64_t contents) {
                         check_weights("TrellisNetCell", {.weights = contents_}, contents);
                       });
  }

  TrellisNetCell& cell_;
  InForce weights_;
  uint64_t contents_;
  int64_t length_;
  InputOf input_;
  Rounds rounds_;
  std::vector<Text> texts_;
  std::vector<int64_t> open_;          // the texts of f_; none: it is to be bound
  std::optional<ops::TrellisStep> f_;  // of these
};

std::unique_ptr<Decoder> TrellisNetCell::decode(const std::vector<History>& pasts, int64_t length,
                                                const InputOf& input) {
  if (!options_.causal) return Cell::decode(pasts, length, input);
  c10::AutoGradMode no_tape(false);
  return fixed_->with([&] { return weights_in_force(weight_type_); },
                      [&](const InForce& weights, uint64_t contents) {
                        return std::make_unique<Decoding>(*this, weights, contents, pasts, length,
                                                          input);
                      });
}

}  // namespace deq
