#pragma once

#include <torch/nn/module.h>

#include "deq/base/fields.h"

namespace deq {

/// How many softmaxes are mixed; 1: a plain one.
struct MixtureOptions {
  int64_t experts = 1;
  double dropout = 0.0;

  static void fields(auto& self, auto&& field) {
    field("experts", self.experts, "softmaxes that are mixed; 1: none", between(1, 1024));
    field("dropout", self.dropout, "share of the experts' features dropped, for all positions",
          half_open(0, 1));
  }
};

/// Mixture of softmaxes (Yang, Dai, Salakhutdinov, Cohen 2018): p(w) = sum_k pi_k(h) p(w | tanh(P_k
/// h)).
class Mixture : public torch::nn::Module {
 public:
  /// From hidden states of width `in` to experts' states of width `out`.
  Mixture(const MixtureOptions& options, int64_t in, int64_t out);

  struct Output {
    at::Tensor log_share;  ///< (B, T, K) log pi_k
    at::Tensor states;     ///< (B, T, K, out)
  };
  /// hidden (B, T, in)
  Output forward(const at::Tensor& hidden) const;
  void initialise(double std);

 private:
  MixtureOptions options_;
  int64_t out_;
  at::Tensor state_weight_, state_bias_;  // (K out, in), (K out)
  at::Tensor share_weight_, share_bias_;  // (K, in), (K)
};

}  // namespace deq
