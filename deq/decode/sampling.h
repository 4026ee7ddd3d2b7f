// From the probabilities of the next token to a token.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include "deq/base/fields.h"

namespace deq {

/// How the next token is drawn.
struct SamplingOptions {
  bool greedy = false;
  double temperature = 1.0;
  int64_t top_k = 0;
  double top_p = 1.0;

  static void fields(auto& self, auto&& field) {
    field("greedy", self.greedy, "always the likeliest token");
    field("temperature", self.temperature, "log-probabilities are divided by it; > 0");
    field("top_k", self.top_k, "only the k likeliest tokens; 0: all", at_least(0));
    field("top_p", self.top_p, "only the likeliest tokens that hold this share of the probability",
          left_open(0, 1));
  }
};

/// Throws deq::Error for options out of range; for a temperature of 0 it names `greedy`.
void check_sampling(const SamplingOptions& options);
/// The same for one of `given`, or a `seed` there, that says how tokens are drawn where none is,
/// and for a `top_k` there that leaves out none of so many tokens.
void check_draws(const SamplingOptions& options, int64_t tokens, const Assignments& given);

/// The log-probabilities (V,) after temperature, top-k and top-p, normalised; -inf for tokens ruled
/// out. At least the likeliest token stays.
at::Tensor restrict(const at::Tensor& log_probabilities, const SamplingOptions& options);

/// One token of (V,) log-probabilities: with the probabilities of restrict(), by one number from
/// the generator; greedily the likeliest, of equally likely ones the first. Throws deq::Error where
/// the log-probabilities are not numbers.
int64_t sample(const at::Tensor& log_probabilities, const SamplingOptions& options,
               at::Generator& generator);

}  // namespace deq
