// Learned clauses as cells: over all places of a problem at once, and along a sequence of bits.
#pragma once

#include "deq/cells/conditions.h"
#include "deq/layers/condition.h"
#include "deq/layers/maxsat.h"

namespace deq {

/// x and z (B, T, S) or (B, H, W, S).
class MaxsatCell final : public ConditionCell {
 public:
  /// Throws deq::Error without symbols.
  MaxsatCell(const LearnedClauses& options, int64_t symbols);

  Equilibrated solve(const at::Tensor& x, const ConditionOptions& how) override;
  void check_places(int64_t places) const override;
  StateKind state_kind() const override { return StateKind::Chances; }
  bool causal() const override { return false; }
  /// S as Maxsat draws it: N(0, 1 / (2 (1 + N + clauses))), whatever `std` is.
  void initialise(double std) override;
  int64_t symbols() const override { return symbols_; }
  int64_t input_width() const override { return symbols_; }
  int64_t state_width() const override { return symbols_; }

 private:
  const char* name() const override { return LearnedClauses::name; }

  LearnedClauses options_;
  int64_t symbols_;
  std::shared_ptr<Maxsat> maxsat_;
};

/// x and z (B, T, 1).
class MaxsatChain final : public ConditionCell {
 public:
  explicit MaxsatChain(const ChainedClauses& options);

  /// A sample's residual is the largest of its links', its reason that of the first that did not
  /// converge, its steps those of all.
  Equilibrated solve(const at::Tensor& x, const ConditionOptions& how) override;
  /// Two at least: of a single one nothing is learned.
  void check_places(int64_t places) const override;
  StateKind state_kind() const override { return StateKind::Chances; }
  /// A loss that is not finite counts as that of guessing.
  void hear(double loss) override;
  bool causal() const override { return true; }
  void initialise(double std) override;
  int64_t input_width() const override { return 1; }
  int64_t state_width() const override { return 1; }

  /// How many times clauses have been drawn.
  int64_t drawn() const { return drawn_.item<int64_t>(); }

 private:
  const char* name() const override { return ChainedClauses::name; }

  ChainedClauses options_;
  std::shared_ptr<Maxsat> maxsat_;
  // Of the training, so that a resumed run goes on alike: the seed of draws, how many there were,
  // steps of this trial, and the sum of the losses that are judged.
  at::Tensor seed_, drawn_, steps_, losses_;
};

}  // namespace deq
