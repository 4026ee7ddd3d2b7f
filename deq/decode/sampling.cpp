#include "deq/decode/sampling.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <mutex>
#include <numeric>
#include <string_view>
#include <vector>

namespace deq {

using at::Tensor;

void check_sampling(const SamplingOptions& options) {
  DEQ_CHECK(options.temperature > 0, "temperature = {}; expected > 0{}", options.temperature,
            options.temperature == 0 ? ", or --greedy for the likeliest token each time" : "");
  validate(options, "Sampling");
}

void check_draws(const SamplingOptions& options, int64_t tokens, const Assignments& given) {
  for (const char* key : {"temperature", "top_k", "top_p", "seed"}) {
    if (!given.count(key)) continue;
    DEQ_CHECK(!options.greedy, "{} = {}: nothing is drawn with greedy; expected one of the two",
              dashed(key), given.at(key));
    DEQ_CHECK(options.top_k != 1 || key == std::string_view("top_k"),
              "{} = {}: nothing is drawn with top-k = 1; expected one of the two", dashed(key),
              given.at(key));
  }
  DEQ_CHECK(options.top_k < tokens || !given.count("top_k"),
            "top-k = {}: it leaves out none of the {} tokens there are; expected fewer",
            options.top_k, tokens);
}

Tensor restrict(const Tensor& log_probabilities, const SamplingOptions& options) {
  check_sampling(options);
  constexpr double kNever = -std::numeric_limits<double>::infinity();
  const Tensor logs = log_probabilities.to(at::kDouble);
  // The likeliest token at 0, where no temperature, however small, makes it overflow.
  Tensor scores = at::log_softmax((logs - logs.max()) / options.temperature, 0);
  const int64_t V = scores.size(0);
  if (options.top_k > 0 && options.top_k < V) {
    const Tensor kept = std::get<1>(scores.topk(options.top_k));
    scores = at::full_like(scores, kNever).index_copy(0, kept, scores.index_select(0, kept));
    scores = at::log_softmax(scores, 0);
  }
  if (options.top_p < 1) {
    const auto [sorted, order] = scores.sort(/*stable=*/true, 0, /*descending=*/true);
    const Tensor before = sorted.exp().cumsum(0) - sorted.exp();  // held by likelier tokens
    const Tensor kept = order.masked_select(before < options.top_p);
    scores = at::full_like(scores, kNever).index_copy(0, kept, scores.index_select(0, kept));
    scores = at::log_softmax(scores, 0);
  }
  return scores;
}

namespace {

/// What may be drawn, with weights of any scale.
class Candidates {
 public:
  template <class T>
  Candidates(const T* logs, int64_t count, const SamplingOptions& options) {
    weights_.resize(size_t(count));
    const double top = double(*std::max_element(logs, logs + count));
    // The likeliest token weighs 1, where no temperature, however small, makes it overflow.
    for (int64_t i = 0; i < count; ++i)
      weights_[size_t(i)] = std::exp((double(logs[i]) - top) / options.temperature);
    if (options.top_k > 0 && options.top_k < count) keep_likeliest(options.top_k);
    total_ = 0;
    for (const double weight : weights_) total_ += weight;
    if (options.top_p < 1) keep_share(options.top_p);
    DEQ_CHECK(total_ > 0 && std::isfinite(total_),
              "sample: log-probabilities of which the largest is {}; expected finite numbers", top);
  }

  /// The token at this share, in [0, 1), of all weights one after the other.
  int64_t at(double share) const {
    double left = share * total_;
    int64_t token = -1;
    for (size_t i = 0; i < weights_.size(); ++i) {
      if (weights_[i] == 0) continue;
      token = int64_t(i);  // the last one, where rounding leaves some of the share
      left -= weights_[i];
      if (left < 0) break;
    }
    return token;
  }

 private:
  /// Tokens from the likeliest on, of equally likely ones in the order of their numbers.
  std::vector<size_t> by_weight() const {
    std::vector<size_t> order(weights_.size());
    std::iota(order.begin(), order.end(), size_t(0));
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return weights_[a] > weights_[b]; });
    return order;
  }

  void keep_likeliest(int64_t count) {
    std::vector<double> sorted = weights_;
    std::nth_element(sorted.begin(), sorted.begin() + count - 1, sorted.end(), std::greater<>());
    const double least = sorted[size_t(count - 1)];
    int64_t equal = count;  // as likely as the last one that stays, and staying themselves
    for (const double weight : weights_) equal -= weight > least;
    for (double& weight : weights_) {
      if (weight < least || (weight == least && equal-- <= 0)) weight = 0;
    }
  }

  void keep_share(double share) {
    double before = 0;
    const double most = share * total_;
    for (const size_t i : by_weight()) {
      const double weight = weights_[i];
      if (before >= most) weights_[i] = 0;
      before += weight;
    }
    total_ = 0;
    for (const double weight : weights_) total_ += weight;
  }

  std::vector<double> weights_;
  double total_ = 0;
};

/// In [0, 1), of 53 random bits.
double uniform(at::Generator& generator) {
  auto* random = at::check_generator<at::CPUGeneratorImpl>(generator);
  const std::lock_guard<std::mutex> held(random->mutex_);
  return std::ldexp(double(random->random64() >> 11), -53);
}

template <class T>
int64_t sample_of(const Tensor& logs, const SamplingOptions& options, at::Generator& generator) {
  const T *begin = logs.data_ptr<T>(), *end = begin + logs.numel();
  if (options.greedy) {
    const T* const likeliest = std::max_element(begin, end);
    DEQ_CHECK(std::isfinite(*likeliest),
              "sample: the largest log-probability is {}; expected a "
              "finite number",
              *likeliest);
    return likeliest - begin;
  }
  return Candidates(begin, end - begin, options).at(uniform(generator));
}

}  // namespace

int64_t sample(const Tensor& log_probabilities, const SamplingOptions& options,
               at::Generator& generator) {
  if (!options.greedy) check_sampling(options);
  const Tensor here = log_probabilities.to(at::kCPU).contiguous();  // where the generator is
  DEQ_CHECK(here.numel() > 0, "sample: {} log-probabilities; expected one at least", here.numel());
  if (here.scalar_type() == at::kFloat) return sample_of<float>(here, options, generator);
  return sample_of<double>(here.to(at::kDouble), options, generator);
}

}  // namespace deq
