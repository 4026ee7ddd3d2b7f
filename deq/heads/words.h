#pragma once

#include "deq/heads/adaptive.h"
#include "deq/heads/head.h"
#include "deq/heads/mixture.h"

namespace deq {

/// An adaptive softmax over a vocabulary, or a mixture of several.
class WordHead final : public Head {
 public:
  /// Of hidden states `width` wide; experts' are `expert_width` wide. Shares with `embedding` what
  /// `tables` ties. Throws deq::Error where that has another width, and for options of a mixture
  /// that mixes nothing.
  WordHead(const EmbeddingOptions& tables, const MixtureOptions& mixture, int64_t vocabulary,
           int64_t width, int64_t expert_width, const AdaptiveEmbedding& embedding);

  at::Tensor loss(const at::Tensor& hidden, const at::Tensor& targets) const override;
  at::Tensor log_probabilities(const at::Tensor& hidden) const override;
  void initialise(double std) override;
  Parts parts() const override;

 private:
  int64_t vocabulary_;
  std::shared_ptr<Mixture> mixture_;  // null with one expert
  std::shared_ptr<AdaptiveSoftmax> softmax_;
};

}  // namespace deq
