// The DEQ-Transformer's f in decoding: one position of each of several texts, each behind a past
// that grows, with kernels for float and double on the CPU.
#pragma once

#include <optional>
#include <vector>

#include "deq/base/tensor_pool.h"
#include "deq/ops/past_keys.h"
#include "deq/ops/transformer_block.h"

namespace deq::ops {

/// f as TransformerBlock has it, to the same bits, of B texts that stand side by side: what one of
/// them is given, or takes into its past, leaves the others as they are. No tape, no dropout.
/// Causal attention; no rounding of scores. Not for several threads.
class BlockDecoder {
 public:
  /// At most `length` positions of each text's past are seen. Throws deq::Error for weights without
  /// a layout.
  BlockDecoder(NormPlace norm, const AttentionView& view, const BlockWeights& weights,
               const at::Tensor& content_bias, const at::Tensor& position_bias, int64_t texts,
               int64_t length);

  /// Projected positions (R, D) of the distances R - 1 .. 0; more than any text's past from now on.
  void set_positions(const at::Tensor& r);
  int64_t positions() const { return positions_.defined() ? rows_ : 0; }

  /// What is injected into a text's position, (3 D); undefined: nothing into any.
  void enter(int64_t text, const at::Tensor& injected);
  /// That, (3 D), or undefined.
  at::Tensor injected(int64_t text) const {
    return injected_.defined() ? injected_[text] : at::Tensor();
  }

  /// z (B, 1, D) -> f(z) (B, 1, D), of the texts whose `done` is 0 (empty: all); anything for the
  /// others.
  at::Tensor operator()(const at::Tensor& z, const std::vector<int64_t>& done);

  /// Takes the position of a text into its past with the keys and values that the latest evaluation
  /// has made of it, if that was at this very z (D). Otherwise false: append() it.
  bool take(int64_t text, const at::Tensor& z);
  /// Keys and values (D) of the text's position, contiguous.
  void append(int64_t text, const at::Tensor& k, const at::Tensor& v);
  const PastKeys& past(int64_t text) const { return pasts_[size_t(text)]; }

 private:
  template <class T>
  at::Tensor evaluate(const at::Tensor& z, const std::vector<int64_t>& open);
  template <class T>
  bool take(int64_t text, const at::Tensor& z);
  template <class T>
  void attend(const std::vector<int64_t>& open);

  NormPlace norm_;
  AttentionView view_;
  BlockWeights weights_;
  int64_t D_, rows_ = 0;
  at::Tensor content_bias_, position_bias_;
  at::Tensor positions_;  // (H, .) packed
  std::vector<PastKeys> pasts_;
  at::Tensor injected_;  // (B, 3 D)
  // Of the latest evaluation, its open texts one after the other: their states (n, D), queries,
  // keys and values (B, 3 D), what they have seen (B, D).
  at::Tensor z_, qkv_, seen_;
  std::vector<int64_t> row_;  // of each text in these; -1: none
  TensorPool pool_;
};

}  // namespace deq::ops
