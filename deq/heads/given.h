// Reading and answering without weights, where a state is the answer: symbols that are given, and
// what a condition says of those that are not.
#pragma once

#include "deq/heads/head.h"
#include "deq/heads/reader.h"

namespace deq {

/// Token 0, a blank, or s + 1, symbol s is given, (B, T) int64, as (B, T, S): -1 at a blank, else 1
/// for the symbol and 0 for the others. Of S = 1 tokens are bits, all of them given.
class GivenReader : public Reader {
 public:
  explicit GivenReader(int64_t symbols);
  at::Tensor forward(const at::Tensor& tokens) const override;
  void initialise(double) override {}

 private:
  int64_t symbols_;
};

/// Of states (B, T, S) in [0, 1]: each number is the chance of its symbol, by itself. With p of
/// symbol s and q of the others, log p(s) = log p + sum log (1 - q), so that the loss is the binary
/// cross-entropy of all; what is missing to 1 are answers of none or of several symbols. Of S = 1
/// it is the chance of the second of two. Numbers within 1e-6 of 0 and 1 count as that far away,
/// and have no gradient.
class ChanceHead final : public Head {
 public:
  explicit ChanceHead(int64_t symbols) : symbols_(symbols) {}
  at::Tensor loss(const at::Tensor& hidden, const at::Tensor& targets) const override;
  at::Tensor log_probabilities(const at::Tensor& hidden) const override;
  void initialise(double) override {}
  Parts parts() const override { return {}; }

 private:
  int64_t symbols_;
};

/// A softmax of `sharpness` times the state (B, T, S).
class ScoreHead final : public Head {
 public:
  explicit ScoreHead(double sharpness) : sharpness_(sharpness) {}
  at::Tensor loss(const at::Tensor& hidden, const at::Tensor& targets) const override;
  at::Tensor log_probabilities(const at::Tensor& hidden) const override;
  void initialise(double) override {}
  Parts parts() const override { return {}; }

 private:
  double sharpness_;
};

}  // namespace deq
