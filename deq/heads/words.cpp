#include "deq/heads/words.h"

#include <ATen/ATen.h>

namespace deq {

using at::Tensor;

WordHead::WordHead(const EmbeddingOptions& tables, const MixtureOptions& mixture,
                   int64_t vocabulary, int64_t width, int64_t expert_width,
                   const AdaptiveEmbedding& embedding)
    : vocabulary_(vocabulary) {
  DEQ_CHECK(mixture.experts > 1 || mixture.dropout == 0,
            "mixture-dropout = {}: nothing is mixed; expected mixture-experts >= 2 with it",
            mixture.dropout);
  if (mixture.experts > 1) {
    mixture_ = std::make_shared<Mixture>(mixture, width, expert_width);
    width = expert_width;
  }
  softmax_ =
      std::make_shared<AdaptiveSoftmax>(Clusters(tables, vocabulary, width), tables, embedding);
}

Tensor WordHead::loss(const Tensor& hidden, const Tensor& targets) const {
  if (!mixture_)
    return softmax_->loss(hidden.reshape({-1, hidden.size(2)}), targets.reshape({-1}))
        .view(targets.sizes());
  const Mixture::Output mixed = mixture_->forward(hidden);
  const Tensor each = targets.unsqueeze(2).expand(mixed.log_share.sizes());  // (B, T, K)
  const Tensor losses = softmax_->loss(mixed.states.reshape({-1, mixed.states.size(3)}),
                                       each.reshape({-1}), ops::LossUse::Any);
  return -(mixed.log_share - losses.view(mixed.log_share.sizes())).logsumexp(2);
}

Tensor WordHead::log_probabilities(const Tensor& hidden) const {
  const auto all = [&](const Tensor& states) {
    auto shape = states.sizes().vec();
    shape.back() = vocabulary_;
    return softmax_->log_probabilities(states.reshape({-1, states.size(-1)})).view(shape);
  };
  if (!mixture_) return all(hidden);
  const Mixture::Output mixed = mixture_->forward(hidden);
  return (mixed.log_share.unsqueeze(3) + all(mixed.states)).logsumexp(2);
}

void WordHead::initialise(double std) {
  if (mixture_) mixture_->initialise(std);
  softmax_->initialise(std);
}

Head::Parts WordHead::parts() const {
  Parts parts;
  if (mixture_) parts.emplace_back("mixture", mixture_);
  parts.emplace_back("softmax", softmax_);
  return parts;
}

}  // namespace deq
