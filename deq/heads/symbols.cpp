#include "deq/heads/symbols.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/types.h>

namespace deq {

using at::Tensor;

SymbolReader::SymbolReader(int64_t symbols, int64_t width) : symbols_(symbols) {
  kinds_ = register_parameter("kinds", torch::zeros({3, width}));
}

void SymbolReader::initialise(double std) {
  c10::AutoGradMode no_tape(false);
  kinds_.normal_(0, std);
}

Tensor SymbolReader::forward(const Tensor& tokens) const {
  const Tensor given = tokens.unsqueeze(2);  // (B, T, 1)
  const Tensor symbol = at::arange(1, symbols_ + 1, tokens.options());
  const Tensor kind =
      at::where(given.eq(0), at::zeros_like(given), 2 - given.eq(symbol).to(at::kLong));
  return kinds_.index_select(0, kind.flatten())
      .view({tokens.size(0), tokens.size(1), symbols_ * kinds_.size(1)});
}

struct SymbolHead::Weights : torch::nn::Module {
  explicit Weights(int64_t width) { weight = register_parameter("weight", torch::zeros({width})); }
  Tensor weight;  // (w)
};

SymbolHead::SymbolHead(int64_t symbols, int64_t width)
    : symbols_(symbols), width_(width), weights_(std::make_shared<Weights>(width)) {}

Tensor SymbolHead::log_probabilities(const Tensor& hidden) const {
  const Tensor states = hidden.reshape({hidden.size(0), hidden.size(1), symbols_, width_});
  return at::matmul(states, weights_->weight).log_softmax(2);
}

Tensor SymbolHead::loss(const Tensor& hidden, const Tensor& targets) const {
  return -log_probabilities(hidden).gather(2, targets.unsqueeze(2)).squeeze(2);
}

void SymbolHead::initialise(double std) {
  c10::AutoGradMode no_tape(false);
  weights_->weight.normal_(0, std);
}

Head::Parts SymbolHead::parts() const { return {{"answer", weights_}}; }

}  // namespace deq
