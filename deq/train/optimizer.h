// Methods of descent whose whole state is named tensors, so that a checkpoint holds it and a
// resumed run repeats every bit. (LibTorch's C++ optimisers have no RAdam and key their state by
// address.)
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <variant>
#include <vector>

#include "deq/base/fields.h"

namespace deq {

/// What methods with moving averages of the gradient are told alike.
struct MomentOptions {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0.0;

  static void fields(auto& self, auto&& field) {
    field("beta1", self.beta1, "decay of the mean of the gradient", half_open(0, 1));
    field("beta2", self.beta2, "decay of the mean of its square", half_open(0, 1));
    field("epsilon", self.epsilon, "added to the root of the latter", above(0));
    field("weight_decay", self.weight_decay, "pull of the weights towards zero", at_least(0));
  }
};

/// Kingma and Ba 2015; weight decay is added to the gradient.
struct Adam : MomentOptions {
  static constexpr const char* name = "adam";
};
/// Loshchilov and Hutter 2019; weight decay is decoupled from the gradient.
struct AdamW : MomentOptions {
  static constexpr const char* name = "adamw";
};
/// Liu et al. 2020: Adam with its rate rectified while the second moment is uncertain.
struct RAdam : MomentOptions {
  static constexpr const char* name = "radam";
};
/// Gradient descent with momentum: m <- momentum m + g; w <- w - rate m.
struct Sgd {
  static constexpr const char* name = "sgd";
  double momentum = 0.0;
  double weight_decay = 0.0;

  static void fields(auto& self, auto&& field) {
    field("momentum", self.momentum, "share of the last step that is kept", half_open(0, 1));
    field("weight_decay", self.weight_decay, "pull of the weights towards zero", at_least(0));
  }
};
using Optimizer = std::variant<Adam, AdamW, Sgd, RAdam>;

using NamedTensors = std::map<std::string, at::Tensor>;

/// A method of descent at work on some parameters. Its whole state is named tensors.
class Descent {
 public:
  Descent(const Optimizer& options, NamedTensors parameters);

  /// One step against the gradients at `rate` > 0. Parameters without a gradient stay.
  void step(double rate);
  void zero_gradients();

  /// Scales all gradients so that their norm is at most `limit` (0: as they are); returns the norm
  /// before.
  double clip(double limit);
  /// The same in two: their norm; and the scaling, of those whose norm it is.
  double norm() const;
  void limit(double norm, double limit);

  /// "mean.<parameter>", "square.<parameter>", "count": shared, not copied.
  NamedTensors state() const;
  /// Throws deq::Error for a tensor that is missing or does not fit.
  void restore(const NamedTensors& state);

 private:
  void moment_step(const MomentOptions& options, double rate, bool decoupled, bool rectified);

  Optimizer options_;
  NamedTensors parameters_;
  NamedTensors mean_, square_;
  int64_t count_ = 0;
};

}  // namespace deq
