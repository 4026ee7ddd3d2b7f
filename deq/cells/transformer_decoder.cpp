// Decoding with keys and values that stay where they are laid out, one evaluation for all texts.
#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>

#include "deq/cells/decoder.h"
#include "deq/cells/transformer_weights.h"
#include "deq/ops/block_decoder.h"

namespace deq {

using at::Tensor;

class TransformerCell::Decoding : public Decoder {
 public:
  Decoding(TransformerCell& cell, const InForce& weights, uint64_t contents,
           const std::vector<History>& pasts, int64_t length)
      : cell_(cell),
        weights_(weights),
        contents_(contents),
        f_(cell.options_.norm,
           {cell.options_.heads, cell.options_.causal, cell.options_.window, cell.float_scores_},
           weights.block, cell.content_bias_.reshape({-1}), cell.position_bias_.reshape({-1}),
           int64_t(pasts.size()), length),
        entered_(pasts.size(), 0) {
    for (size_t text = 0; text < pasts.size(); ++text) {
      check_weights("TransformerCell", pasts[text], contents);
      if (pasts[text].length() == 0) continue;
      const Tensor k = pasts[text].k[0].contiguous(), v = pasts[text].v[0].contiguous();
      for (int64_t i = std::max<int64_t>(0, k.size(0) - length); i < k.size(0); ++i)
        f_.append(int64_t(text), k[i], v[i]);
    }
  }

  void enter(const std::vector<int64_t>& texts, const Tensor& x) override {
    c10::AutoGradMode no_tape(false);
    check_weights_of(texts);
    int64_t longest = 0;
    for (const int64_t text : texts) longest = std::max(longest, held(text) + 1);
    if (longest > f_.positions()) set_positions(longest);
    if (!cell_.inject_) return;
    const Tensor injected = ops::affine(x, weights_.inject, cell_.inject_->bias());
    for (size_t i = 0; i < texts.size(); ++i) f_.enter(texts[i], injected[int64_t(i)][0]);
  }

  Tensor evaluate(const Tensor& z, const std::vector<int64_t>& done) override {
    return f_(z, done);
  }

  void advance(const std::vector<int64_t>& texts, const Tensor& z) override {
    c10::AutoGradMode no_tape(false);
    const int64_t D = cell_.options_.width;
    for (size_t i = 0; i < texts.size(); ++i) {
      const Tensor own = z[int64_t(i)];  // (1, D)
      if (f_.take(texts[i], own)) continue;
      const Tensor injected = f_.injected(texts[i]);
      const Tensor base =
          injected.defined() ? injected.narrow(0, D, 2 * D).view({1, 1, 2 * D}) : Tensor();
      const Tensor x = cell_.options_.norm == NormPlace::Post ? own : at::layer_norm(own, {D});
      const Tensor kv = ops::affine(x.unsqueeze(0), weights_.keys_and_values, base)[0][0];
      f_.append(texts[i], kv.narrow(0, 0, D), kv.narrow(0, D, D));
    }
  }

  std::vector<History> pasts() override {
    check_contents(0);
    std::vector<History> found(entered_.size());
    for (size_t text = 0; text < found.size(); ++text) {
      if (held(int64_t(text)) == 0) continue;
      const ops::PastKeys& past = f_.past(int64_t(text));
      found[text] = {.k = past.keys(), .v = past.values(), .weights = contents_};
    }
    return found;
  }

 private:
  int64_t held(int64_t text) const { return f_.past(text).end() - f_.past(text).begin(); }

  /// Reads all weights once for every round of the texts.
  void check_weights_of(const std::vector<int64_t>& texts) {
    const bool again = std::any_of(texts.begin(), texts.end(),
                                   [&](int64_t text) { return entered_[size_t(text)] != 0; });
    if (again) {
      check_contents(texts.front());
      std::fill(entered_.begin(), entered_.end(), 0);
    }
    for (const int64_t text : texts) entered_[size_t(text)] = 1;
  }

  void check_contents(int64_t text) {
    cell_.fixed_->with([&] { return cell_.fixed(); },
                       [&](const Fixed&, uint64_t contents) {
                         History past;
                         past.k = at::empty({1, held(text), 0});
                         past.weights = contents_;
                         check_weights("TransformerCell", past, contents);
                       });
  }

  void set_positions(int64_t count) {
    cell_.fixed_->with([&] { return cell_.fixed(); },
                       [&](Fixed& fixed, uint64_t) {
                         cell_.fixed_positions(fixed, 1, count - 1);
                         f_.set_positions(fixed.r);
                       });
  }

  TransformerCell& cell_;
  InForce weights_;
  uint64_t contents_;
  ops::BlockDecoder f_;
  std::vector<char> entered_;  // since the weights were read
};

std::unique_ptr<Decoder> TransformerCell::decode(const std::vector<History>& pasts,
                                                 int64_t length) {
  c10::AutoGradMode no_tape(false);
  const bool kept = std::all_of(pasts.begin(), pasts.end(), [](const History& past) {
    return past.length() == 0 || past.k.defined();
  });
  if (!kept || !options_.causal || float_scores_ || is_training())
    return Cell::decode(pasts, length);
  return fixed_->with([&] { return fixed(); },
                      [&](const Fixed& fixed, uint64_t contents) -> std::unique_ptr<Decoder> {
                        if (!fixed.weights.block.packed) return Cell::decode(pasts, length);
                        return std::make_unique<Decoding>(*this, fixed.weights, contents, pasts,
                                                          length);
                      });
}

}  // namespace deq
