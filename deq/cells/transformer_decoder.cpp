// Decoding with keys and values that stay where they are laid out, one evaluation for all texts.
#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <unordered_map>

#include "deq/cells/decoder.h"
#include "deq/cells/transformer_weights.h"
#include "deq/ops/block_decoder.h"

namespace deq {

using at::Tensor;

class TransformerCell::Decoding : public Decoder {
 public:
  Decoding(TransformerCell& cell, const InForce& weights, uint64_t contents,
           const std::vector<History>& pasts, int64_t length, const InputOf& input)
      : cell_(cell),
        input_(input),
        weights_(weights),
        contents_(contents),
        f_(cell.options_.norm,
           {cell.options_.heads, cell.options_.causal, cell.options_.window, cell.float_scores_},
           weights.block, cell.content_bias_.reshape({-1}), cell.position_bias_.reshape({-1}),
           int64_t(pasts.size()), length),
        texts_(pasts.size()),
        rounds_(pasts.size()),
        most_known_(
            size_t(kKnownBytes / (3 * cell.options_.width * cell.frequency_.element_size()))) {
    for (size_t text = 0; text < pasts.size(); ++text) {
      check_weights("TransformerCell", pasts[text], contents);
      if (pasts[text].length() == 0) continue;
      const Tensor k = pasts[text].k[0].contiguous(), v = pasts[text].v[0].contiguous();
      for (int64_t i = std::max<int64_t>(0, k.size(0) - length); i < k.size(0); ++i)
        f_.append(int64_t(text), k[i], v[i]);
    }
  }

  void enter(const std::vector<int64_t>& texts, const std::vector<int64_t>& tokens) override {
    c10::AutoGradMode no_tape(false);
    int64_t longest = 0;
    for (const int64_t text : texts) {
      if (rounds_.due(text)) check_contents(text);
      longest = std::max(longest, held(text) + 1);
    }
    if (longest > f_.positions()) set_positions(longest);
    if (!cell_.inject_) return;
    learn(tokens);
    for (size_t i = 0; i < texts.size(); ++i) f_.enter(texts[i], known_.at(tokens[i]));
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
    std::vector<History> found(texts_);
    for (size_t text = 0; text < found.size(); ++text) {
      if (held(int64_t(text)) == 0) continue;
      const ops::PastKeys& past = f_.past(int64_t(text));
      found[text] = {.k = past.keys(), .v = past.values(), .weights = contents_};
    }
    return found;
  }

 private:
  int64_t held(int64_t text) const { return f_.past(text).end() - f_.past(text).begin(); }

  /// Makes the injections of the tokens that have none yet, or none any more.
  void learn(const std::vector<int64_t>& tokens) {
    if (known_.size() > most_known_) known_.clear();
    std::vector<int64_t> unknown;
    for (const int64_t token : tokens) {
      if (known_.emplace(token, Tensor()).second) unknown.push_back(token);
    }
    if (unknown.empty()) return;
    const Tensor injected = ops::affine(input_(unknown), weights_.inject, cell_.inject_->bias());
    for (size_t i = 0; i < unknown.size(); ++i)
      known_[unknown[i]] = injected[int64_t(i)][0].clone();
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

  static constexpr int64_t kKnownBytes = int64_t(16) << 20;  // of injections

  TransformerCell& cell_;
  InputOf input_;
  InForce weights_;
  uint64_t contents_;
  ops::BlockDecoder f_;
  size_t texts_;
  Rounds rounds_;
  size_t most_known_;
  std::unordered_map<int64_t, Tensor> known_;  // (3 D) injected, by token
};

std::unique_ptr<Decoder> TransformerCell::decode(const std::vector<History>& pasts, int64_t length,
                                                 const InputOf& input) {
  c10::AutoGradMode no_tape(false);
  const bool kept = std::all_of(pasts.begin(), pasts.end(), [](const History& past) {
    return past.length() == 0 || past.k.defined();
  });
  if (!kept || !options_.causal || float_scores_ || is_training())
    return Cell::decode(pasts, length, input);
  return fixed_->with([&] { return fixed(); },
                      [&](const Fixed& fixed, uint64_t contents) -> std::unique_ptr<Decoder> {
                        if (!fixed.weights.block.packed) return Cell::decode(pasts, length, input);
                        return std::make_unique<Decoding>(*this, fixed.weights, contents, pasts,
                                                          length, input);
                      });
}

}  // namespace deq
