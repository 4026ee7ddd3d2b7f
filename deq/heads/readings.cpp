#include "deq/heads/readings.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/types.h>

namespace deq {

using at::Tensor;

namespace {

void draw(const Tensor& weight, double std) {
  c10::AutoGradMode no_tape(false);
  weight.normal_(0, std);
}
void clear(const Tensor& bias) {
  c10::AutoGradMode no_tape(false);
  bias.zero_();
}

/// (..., b) of numbers, the highest bit first, of the type of `like`.
Tensor bits_of(const Tensor& numbers, int64_t bits, const Tensor& like) {
  const Tensor powers = at::arange(bits - 1, -1, -1, numbers.options());
  return numbers.unsqueeze(-1).bitwise_right_shift(powers).bitwise_and(1).to(like.scalar_type());
}

}  // namespace

ValueReader::ValueReader(int64_t symbols, int64_t row, int64_t width)
    : largest_(double(symbols - 1)), row_(row) {
  weight_ = register_parameter("weight", torch::zeros({width, row}));
  bias_ = register_parameter("bias", torch::zeros({width}));
}

void ValueReader::initialise(double std) {
  draw(weight_, std);
  clear(bias_);
}

Tensor ValueReader::forward(const Tensor& tokens) const {
  DEQ_CHECK(tokens.size(1) % row_ == 0, "{} values of a problem; expected rows of {}",
            tokens.size(1), row_);
  const Tensor values = tokens.to(weight_.scalar_type()).div_(largest_);
  return at::linear(values.view({tokens.size(0), -1, row_}), weight_, bias_);
}

BitReader::BitReader(int64_t symbols, int64_t bits, int64_t width) : bits_(bits) {
  weight_ = register_parameter("weight", torch::zeros({bits, width}));
  bias_ = register_parameter("bias", torch::zeros({width}));
  others_ = register_parameter("others", torch::zeros({symbols - (int64_t{1} << bits), width}));
}

void BitReader::initialise(double std) {
  draw(weight_, std);
  draw(others_, std);
  clear(bias_);
}

Tensor BitReader::forward(const Tensor& tokens) const {
  const int64_t numbers = int64_t{1} << bits_;
  const Tensor read = at::matmul(bits_of(tokens, bits_, weight_), weight_) + bias_;
  if (others_.size(0) == 0) return read;
  const Tensor other = tokens.sub(numbers).clamp_min(0);
  const Tensor own = others_.index_select(0, other.flatten()).view(read.sizes());
  return at::where(tokens.lt(numbers).unsqueeze(-1), read, own);
}

struct ClassHead::Weights : torch::nn::Module {
  Weights(int64_t answers, int64_t width) {
    weight = register_parameter("weight", torch::zeros({answers, width}));
    bias = register_parameter("bias", torch::zeros({answers}));
  }
  Tensor weight, bias;
};

ClassHead::ClassHead(int64_t answers, int64_t width)
    : weights_(std::make_shared<Weights>(answers, width)) {}

Tensor ClassHead::log_probabilities(const Tensor& hidden) const {
  return at::linear(hidden, weights_->weight, weights_->bias).log_softmax(-1);
}

Tensor ClassHead::loss(const Tensor& hidden, const Tensor& targets) const {
  return -log_probabilities(hidden).gather(2, targets.unsqueeze(2)).squeeze(2);
}

void ClassHead::initialise(double std) {
  draw(weights_->weight, std);
  clear(weights_->bias);
}

Head::Parts ClassHead::parts() const { return {{"classes", weights_}}; }

struct BitHead::Weights : torch::nn::Module {
  Weights(int64_t bits, int64_t width) {
    weight = register_parameter("weight", torch::zeros({bits, width}));
    bias = register_parameter("bias", torch::zeros({bits}));
  }
  Tensor logits(const Tensor& hidden) const { return at::linear(hidden, weight, bias); }
  Tensor weight, bias;
};

BitHead::BitHead(int64_t bits, int64_t width)
    : bits_(bits), weights_(std::make_shared<Weights>(bits, width)) {}

/// log p(s) = sum_k log sigmoid(l_k) where bit k of s is 1, log sigmoid(-l_k) where it is 0.
Tensor BitHead::log_probabilities(const Tensor& hidden) const {
  const Tensor logits = weights_->logits(hidden);  // (B, T, b)
  const Tensor numbers = at::arange(int64_t{1} << bits_, logits.options().dtype(at::kLong));
  const Tensor set = bits_of(numbers, bits_, logits);  // (2^b, b)
  return at::matmul(at::log_sigmoid(logits), set.t()) +
         at::matmul(at::log_sigmoid(-logits), (1 - set).t());
}

Tensor BitHead::loss(const Tensor& hidden, const Tensor& targets) const {
  const Tensor sign = 2 * bits_of(targets, bits_, hidden) - 1;
  return -at::log_sigmoid(sign * weights_->logits(hidden)).sum(-1);
}

void BitHead::initialise(double std) {
  draw(weights_->weight, std);
  clear(weights_->bias);
}

Head::Parts BitHead::parts() const { return {{"bits", weights_}}; }

}  // namespace deq
