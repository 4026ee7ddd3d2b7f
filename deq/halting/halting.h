// When a problem's solve ends: by which rule, and how a rule that is learned is trained. A rule is
// any options struct with what HaltingRule::Of asks for; those with names are listed in
// halting.cpp. To add one: its file, and its line there.
#pragma once

#include <ATen/core/Tensor.h>

#include "deq/base/choice.h"

namespace deq {

/// What a rule may ask of a model about states (B, ..., D).
struct Readout {
  std::function<at::Tensor(const at::Tensor& z)> log_probabilities;  ///< (B, ..., answers)
  /// (B), of the model's halting unit; empty where the rule has none.
  std::function<at::Tensor(const at::Tensor& z)> logits;
};

/// z -> f(z), and the state after it, which is f(z) unless steps are damped: (B, ..., D) each.
struct PlainStep {
  at::Tensor z, fz, next;
};

/// A rule at work on the plain steps of one batch, of which it hears all, in order.
class HaltingJudge {
 public:
  virtual ~HaltingJudge() = default;
  /// (B) bool: which samples halt at this step; what it says of samples that have halted before
  /// does not matter, nor what their rows hold.
  virtual at::Tensor halts(const PlainStep& step) = 0;
  /// (B, ..., D): where samples are left that halt at this step, (B) bool, or whose steps end with
  /// it.
  virtual at::Tensor left(const PlainStep& step, const at::Tensor& halts) = 0;
  /// Whether samples that halt are left at the state before the step, not behind it.
  virtual bool leaves_before() const { return false; }
};

/// The states that plain steps led through, z_1, ..., z_N (B, ..., D), with their tape.
struct Chain {
  std::vector<at::Tensor> states;
  at::Tensor logits;  ///< (B, N) of the model's halting unit
  /// Of states, the losses of their answers, -log p(target) summed over a sample's targets: (B,
  /// states). With a tape.
  std::function<at::Tensor(const std::vector<at::Tensor>& states)> nats;
  /// (B, states) bool: every target is the likeliest answer.
  std::function<at::Tensor(const std::vector<at::Tensor>& states)> right;
};

/// What a rule makes of a chain.
struct ChainLoss {
  at::Tensor nats;    ///< (B) of the answer, summed over a sample's targets, with a tape
  at::Tensor beside;  ///< () what is added to the loss, a mean over samples, with a tape
  at::Tensor steps;   ///< (B) at which samples halt, expected where that is drawn; without a tape
};

/// What a rule's options can do.
struct HaltingRule : Held<HaltingRule> {
  template <class Rule>
  struct Of;
  static const std::vector<Choice<HaltingRule>>& known();

  virtual bool halts() const = 0;       ///< false of `none` alone
  virtual bool learned() const = 0;     ///< it reads a halting unit, whose weights are the model's
  virtual bool every_step() const = 0;  ///< it is trained on all steps from the start on
  /// How the unit begins, and how the places of a sample make its one number.
  virtual double bias() const = 0;
  virtual bool least() const = 0;
  /// `first` is the number of the batch's first sample among all, for rules that draw.
  virtual std::unique_ptr<HaltingJudge> judge(const Readout& readout, int64_t first) const = 0;
  virtual ChainLoss loss(const Chain& chain) const = 0;
};

/// One of the rules; `none` unless told otherwise.
using Halting = Choice<HaltingRule>;

/// Without its bounds.
inline Range open_interval(double low, double high) { return {low, high, true, true}; }

/// How the places of a sample make its one number.
enum class HaltingPool { Least, Mean };
template <>
struct Names<HaltingPool> {
  static constexpr const char* values[] = {"least", "mean"};
};

/// A rule without a unit has neither `bias` nor `pool`, and no loss of its own.
template <class Rule>
struct HaltingRule::Of final : HeldAs<HaltingRule, Rule> {
  using HeldAs<HaltingRule, Rule>::HeldAs;
  static constexpr bool kLearned = requires(const Rule& rule, const Chain& chain) {
    rule.loss(chain);
  };
  bool halts() const override {
    return requires(const Rule& rule, const Readout& readout) { rule.judge(readout, 0); };
  }
  bool learned() const override { return kLearned; }
  bool every_step() const override {
    if constexpr (kLearned) return Rule::every_step;
    return false;
  }
  double bias() const override {
    if constexpr (kLearned) return this->value.bias;
    return 0;
  }
  bool least() const override {
    if constexpr (kLearned) return this->value.pool == HaltingPool::Least;
    return false;
  }
  std::unique_ptr<HaltingJudge> judge(const Readout& readout, int64_t first) const override {
    if constexpr (requires(const Rule& rule) { rule.judge(readout, first); })
      return this->value.judge(readout, first);
    return nullptr;
  }
  ChainLoss loss(const Chain& chain) const override {
    if constexpr (kLearned) return this->value.loss(chain);
    return {};
  }
};

/// (B) as the states (B, ..., D) stand, (B, 1, ..., 1).
at::Tensor beside_states(const at::Tensor& samples, const at::Tensor& states);

}  // namespace deq
