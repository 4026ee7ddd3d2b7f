#include "deq/heads/given.h"

#include <ATen/ATen.h>

namespace deq {

using at::Tensor;

namespace {

constexpr double kNearest = 1e-6;  // to a chance of 0 and 1

Tensor chosen(const Tensor& log_probabilities, const Tensor& targets) {
  return -log_probabilities.gather(2, targets.unsqueeze(2)).squeeze(2);
}

}  // namespace

GivenReader::GivenReader(int64_t symbols) : symbols_(symbols) {}

Tensor GivenReader::forward(const Tensor& tokens) const {
  const Tensor token = tokens.unsqueeze(2);  // (B, T, 1)
  if (symbols_ == 1) return token.to(at::kFloat);
  const Tensor one_hot = token.eq(at::arange(1, symbols_ + 1, tokens.options())).to(at::kFloat);
  return one_hot.masked_fill(token.eq(0), -1);
}

Tensor ChanceHead::log_probabilities(const Tensor& hidden) const {
  const Tensor z = hidden.clamp(kNearest, 1 - kNearest);
  const Tensor yes = z.log(), no = at::log1p(-z);
  if (symbols_ == 1) return at::cat({no, yes}, 2);
  return yes - no + no.sum(2, /*keepdim=*/true);
}

Tensor ChanceHead::loss(const Tensor& hidden, const Tensor& targets) const {
  return chosen(log_probabilities(hidden), targets);
}

Tensor ScoreHead::log_probabilities(const Tensor& hidden) const {
  return (sharpness_ * hidden).log_softmax(2);
}

Tensor ScoreHead::loss(const Tensor& hidden, const Tensor& targets) const {
  return chosen(log_probabilities(hidden), targets);
}

}  // namespace deq
