#include "deq/heads/values.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/types.h>

#include <algorithm>

#include "deq/base/levels.h"
#include "deq/base/quantiles.h"

namespace deq {

using at::Tensor;

SeriesReader::SeriesReader(int64_t columns, int64_t width) : columns_(columns) {
  weight_ = register_parameter("weight", torch::zeros({width, 2 * columns + 2}));
  bias_ = register_parameter("bias", torch::zeros({width}));
}

void SeriesReader::initialise(double std) {
  c10::AutoGradMode no_tape(false);
  weight_.normal_(0, std);
  bias_.zero_();
}

Tensor SeriesReader::forward(const Tensor& ids) const {
  DEQ_CHECK(ids.size(1) % columns_ == 0, "{} values of a problem; expected rows of {}", ids.size(1),
            columns_);
  const Tensor rows = ids.view({ids.size(0), -1, columns_});
  const auto type = weight_.scalar_type();
  const Tensor asked = rows.narrow(2, 0, 1).eq(kAsked).to(type);  // (B, T, 1)
  const Tensor seen = at::cat({values_of(rows).to(type), rows.eq(kMissing).to(type), asked,
                               asked.cumsum(1).div(double(rows.size(1))).mul(asked)},
                              2);
  return at::linear(seen, weight_, bias_);
}

Tensor ValueHead::log_probabilities(const Tensor&) const {
  throw Error("reading = series: real values have no probabilities; expected symbols");
}

namespace {

/// (B, T, C, n) of states.
struct Weights : torch::nn::Module {
  Weights(int64_t columns, int64_t each, int64_t width) : columns(columns), each(each) {
    weight = register_parameter("weight", torch::zeros({columns * each, width}));
    bias = register_parameter("bias", torch::zeros({columns * each}));
  }
  Tensor values(const Tensor& hidden) const {
    return at::linear(hidden, weight, bias).view({hidden.size(0), hidden.size(1), columns, each});
  }
  void initialise(double std) {
    c10::AutoGradMode no_tape(false);
    weight.normal_(0, std);
    bias.zero_();
  }
  int64_t columns, each;
  Tensor weight, bias;
};

class PointHead final : public ValueHead {
 public:
  PointHead(ValueError error, int64_t columns, int64_t width)
      : error_(error), weights_(std::make_shared<Weights>(columns, 1, width)) {}
  Tensor values(const Tensor& hidden) const override { return weights_->values(hidden); }
  std::vector<int64_t> percents() const override { return {}; }
  Tensor loss(const Tensor& hidden, const Tensor& targets) const override {
    const Tensor e = values(hidden).squeeze(3) - values_of(targets).to(hidden.scalar_type());
    return error_ == ValueError::Squared ? e.square() : e.abs();
  }
  void initialise(double std) override { weights_->initialise(std); }
  Parts parts() const override { return {{"values", weights_}}; }

 private:
  ValueError error_;
  std::shared_ptr<Weights> weights_;
};

class QuantileHead final : public ValueHead {
 public:
  QuantileHead(std::vector<int64_t> percents, int64_t columns, int64_t width)
      : percents_(std::move(percents)),
        weights_(std::make_shared<Weights>(columns, int64_t(percents_.size()), width)) {}
  Tensor values(const Tensor& hidden) const override { return weights_->values(hidden); }
  std::vector<int64_t> percents() const override { return percents_; }
  Tensor loss(const Tensor& hidden, const Tensor& targets) const override {
    return pinball(values(hidden), values_of(targets).to(hidden.scalar_type()), percents_);
  }
  void initialise(double std) override { weights_->initialise(std); }
  Parts parts() const override { return {{"quantiles", weights_}}; }

 private:
  std::vector<int64_t> percents_;
  std::shared_ptr<Weights> weights_;
};

}  // namespace

std::unique_ptr<ValueHead> make_value_head(const ValueOptions& options, int64_t columns,
                                           int64_t width) {
  if (options.head == ValueAnswer::Values)
    return std::make_unique<PointHead>(options.error, columns, width);
  const std::vector<int64_t>& q = options.quantiles;
  const bool rising = std::adjacent_find(q.begin(), q.end(), std::greater_equal<>()) == q.end();
  const bool fits =
      rising && std::find(q.begin(), q.end(), 50) != q.end() && q.front() >= 1 && q.back() <= 99;
  DEQ_CHECK(fits, "quantiles = {}; expected numbers from 1 to 99, rising, with 50 among them",
            fmt::join(q, ","));
  return std::make_unique<QuantileHead>(q, columns, width);
}

}  // namespace deq
