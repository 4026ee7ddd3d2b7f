// A gradient mode is any options struct with `apply`; those with names are listed in gradients.cpp.
// To add one: its file, and its line there.
#pragma once

#include "deq/base/choice.h"
#include "deq/gradients/differentiate.h"

namespace deq {

/// What a gradient mode's options can do.
struct GradientMode : Held<GradientMode> {
  template <class Mode>
  struct Of;
  static const std::vector<Choice<GradientMode>>& known();

  /// z* = f(z*) from z0, with gradients to whatever f captured as the mode has them.
  virtual Equilibrated apply(const Map& f, const at::Tensor& z0, const Forward& forward) const = 0;
};

/// One of the modes; Implicit unless told otherwise.
using Gradient = Choice<GradientMode>;

template <class Mode>
struct GradientMode::Of final : HeldAs<GradientMode, Mode> {
  using HeldAs<GradientMode, Mode>::HeldAs;
  Equilibrated apply(const Map& f, const at::Tensor& z0, const Forward& forward) const override {
    return this->value.apply(f, z0, forward);
  }
};

}  // namespace deq
