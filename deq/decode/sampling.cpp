#include "deq/decode/sampling.h"

#include <ATen/ATen.h>

#include <limits>

namespace deq {

using at::Tensor;

void check_sampling(const SamplingOptions& options) {
  DEQ_CHECK(options.temperature > 0, "temperature = {}; expected > 0{}", options.temperature,
            options.temperature == 0 ? ", or --greedy for the likeliest token each time" : "");
  validate(options, "Sampling");
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

int64_t sample(const Tensor& log_probabilities, const SamplingOptions& options,
               at::Generator& generator) {
  if (options.greedy) return log_probabilities.argmax().item<int64_t>();
  const Tensor here = log_probabilities.to(at::kCPU);  // where the generator is
  return at::multinomial(restrict(here, options).exp(), 1, false, generator).item<int64_t>();
}

}  // namespace deq
