// Which part of a state is solved together: the rows of the solver.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "deq/base/fields.h"

namespace deq {

/// Whose residuals choose the coefficients with which a position's past iterates are mixed.
/// `Sample` leaks the future into the past by about the size of the residual; `Position` and
/// `Causal` leak nothing, since coefficients, stop and best iterate of position t depend on
/// positions <= t only. Both need an f that is causal in dimension 1 (position t of f(z) depends on
/// z at positions <= t).
enum class Scope { Sample, Position, Causal };
template <>
struct Names<Scope> {
  static constexpr const char* values[] = {"sample", "position", "causal"};
};

/// The direction in which positions depend on each other: f itself runs forward, its adjoint
/// backward.
enum class Order { Forward, Backward };

/// A state is (B, T, D): batch, positions, features. More dimensions are folded into D; (B, D) has
/// one position, (D) and a scalar have one row.
struct Layout {
  Scope scope = Scope::Sample;
  Order order = Order::Forward;
  int64_t batch = 1, positions = 1, features = 1;

  Layout() = default;
  Layout(const at::Tensor& z, Scope scope, Order order);

  bool by_position() const { return scope != Scope::Sample; }
  int64_t rows() const { return by_position() ? batch * positions : batch; }
  int64_t width() const { return by_position() ? features : positions * features; }
  /// (R, n), contiguous
  at::Tensor fold(const at::Tensor& z) const;
};

}  // namespace deq
