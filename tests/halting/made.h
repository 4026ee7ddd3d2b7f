// Made-up states of some steps, which rules are asked about.
#pragma once

#include <ATen/ATen.h>
#include <torch/types.h>

#include <cmath>

#include "deq/halting/act.h"
#include "deq/halting/halting.h"
#include "deq/halting/ponder.h"
#include "deq/halting/right_head.h"

namespace deq::testing {

using at::Tensor;

inline constexpr int64_t kB = 5, kN = 7, kT = 3, kD = 4;

inline double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

inline Tensor doubles(at::IntArrayRef shape, uint64_t seed) {
  at::manual_seed(seed);
  return at::randn(shape, at::kDouble);
}

/// States of some steps, numbers of a unit, and a loss of each state that is no linear one.
struct Made {
  Tensor states = doubles({kN, kB, kT, kD}, 1);  // of all steps
  Tensor logits = doubles({kB, kN}, 2);

  static Tensor nats_of(const Tensor& z) { return z.square().flatten(1).sum(1) + z[0].numel(); }
  static Tensor right_of(const Tensor& z) { return z.flatten(1).sum(1).gt(0); }

  Chain chain() const {
    Chain chain;
    for (int64_t n = 0; n < states.size(0); ++n) chain.states.push_back(states[n]);
    chain.logits = logits;
    const auto each = [](auto of) {
      return [of](const std::vector<Tensor>& some) {
        std::vector<Tensor> found;
        for (const Tensor& z : some) found.push_back(of(z));
        return at::stack(found, 1);
      };
    };
    chain.nats = each(nats_of);
    chain.right = each(right_of);
    return chain;
  }
};

/// ACT of one sample, as Graves 2016 writes it.
struct ByHand {
  std::vector<double> p;
  double remainder = 1;
  int64_t steps = 0;

  ByHand(const Tensor& logits, double threshold) {
    double sum = 0;
    for (int64_t n = 0; n < logits.size(0); ++n) {
      const double h = sigmoid(logits[n].item<double>());
      ++steps;
      if (sum + h >= threshold || n + 1 == logits.size(0)) break;
      p.push_back(h);
      sum += h;
    }
    remainder = 1 - sum;
    p.push_back(remainder);
  }
};

inline std::vector<Halting> learned() {
  return {AdaptiveHalting{.threshold = 0.8, .cost = 0.3}, PonderHalting{.prior = 0.3, .weight = 2},
          RightHead{.weight = 0.7}};
}

}  // namespace deq::testing
