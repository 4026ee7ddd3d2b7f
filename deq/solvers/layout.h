// Which part of a state is solved together: the rows of the solver.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "deq/base/fields.h"

namespace deq {

/// Which parts of a state are rows: what is stopped, judged and accelerated together. A row's
/// coefficients, stop and guards depend on its own numbers (and, by position, on those of the
/// positions it depends on), so a scope fits an f in which rows depend on each other only as it
/// says:
///   Whole     one row for everything: any f. Batch normalisation over samples, graphs with nodes
///             as rows, (T, B, D).
///   Sample    a row per sample (dimension 0), which depend on nothing of each other. Positions of
///             one sample may: the future leaks into the past by about the size of the residual.
///   Position  a row per position (dimensions 0 and 1), which depends on those before it in its
///             sample only (after it, in Order::Backward). Nothing leaks.
///   Causal    the same; coefficients are chosen from all positions that a row depends on.
/// Where rows depend on each other against that, a row whose residual has grown again is taken up
/// again (driver.h), so that what is reported is true of all rows together; but convergence is
/// slower than with the scope that fits, or fails and says so.
enum class Scope { Sample, Position, Causal, Whole };
template <>
struct Names<Scope> {
  static constexpr const char* values[] = {"sample", "position", "causal", "whole"};
};
/// Whether a row is one position of a sample.
inline bool by_position(Scope scope) { return scope == Scope::Position || scope == Scope::Causal; }

/// The direction in which positions depend on each other: f itself runs forward, its adjoint
/// backward.
enum class Order { Forward, Backward };

/// A state is (B, T, D): batch, positions, features. More dimensions are folded into D, so that
/// channels of (B, C, H, W) would be taken for positions: there it is scope `sample` or `whole`.
/// (B, D) has one position, (D) and a scalar have one row.
struct Layout {
  Scope scope = Scope::Sample;
  Order order = Order::Forward;
  int64_t batch = 1, positions = 1, features = 1;

  Layout() = default;
  Layout(const at::Tensor& z, Scope scope, Order order);

  bool by_position() const { return deq::by_position(scope); }
  int64_t rows() const {
    return scope == Scope::Whole ? 1 : by_position() ? batch * positions : batch;
  }
  int64_t width() const {
    return by_position() ? features : positions * features * (scope == Scope::Whole ? batch : 1);
  }
  /// (R, n), contiguous
  at::Tensor fold(const at::Tensor& z) const;
};

}  // namespace deq
