// The solvers' passes over memory: inner products with a history of states, and mixtures of one.
//   R rows of n numbers; a history is a list of m states, each (R, n) contiguous. Rows may be left
//   out (R flags; none: empty): nothing of theirs is read. Results are taken from the pool, if one
//   is given.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "deq/base/tensor_pool.h"

namespace deq::ops {

/// out[r, i] = <history[i][r, :], g[r, :]>, (R, m) double; anything in rows that are left out. One
/// pass over the history.
at::Tensor row_dots(const std::vector<at::Tensor>& history, const at::Tensor& g,
                    const std::vector<char>& left_out = {}, TensorPool* pool = nullptr);

/// base + sum_i coefficients[r, i] history[i][r, :], (R, n); anything in rows that are left out.
/// One pass over the history. `coefficients` is (R, m) double; `base` may be undefined (zero).
at::Tensor row_mix(const at::Tensor& coefficients, const std::vector<at::Tensor>& history,
                   const at::Tensor& base = {}, const std::vector<char>& left_out = {},
                   TensorPool* pool = nullptr);

/// A step from z to next = z + base + sum_i coefficients[r, i] history[i][r, :], what it is after
/// rounding, next - z, and its inner products with the history (R, m) double. One pass over the
/// history.
struct RowStep {
  at::Tensor next, step, dots;
};
RowStep row_step(const at::Tensor& z, const at::Tensor& base, const at::Tensor& coefficients,
                 const std::vector<at::Tensor>& history, const std::vector<char>& left_out = {},
                 TensorPool* pool = nullptr);

/// a in the rows that are chosen (R flags), b in the others; both (R, n). No arithmetic: NaN does
/// not spread.
at::Tensor row_where(const std::vector<char>& chosen, const at::Tensor& a, const at::Tensor& b,
                     TensorPool* pool = nullptr);

/// The residual of every row, g = fz - z, and its size: norms (R, 2) double holds |g| and |fz|, the
/// same numbers whatever other rows there are, and of numbers of any size. One pass over both.
struct RowResidual {
  at::Tensor g, norms;
};
RowResidual row_residual(const at::Tensor& z, const at::Tensor& fz, TensorPool* pool = nullptr);

/// |a - b| of every row, (R) double; anything in rows that are left out. Both (R, n).
at::Tensor row_distances(const at::Tensor& a, const at::Tensor& b,
                         const std::vector<char>& left_out = {}, TensorPool* pool = nullptr);

/// The plain references, on any device and type.
at::Tensor row_dots_reference(const std::vector<at::Tensor>& history, const at::Tensor& g);
at::Tensor row_mix_reference(const at::Tensor& coefficients, const std::vector<at::Tensor>& history,
                             const at::Tensor& base = {});
RowStep row_step_reference(const at::Tensor& z, const at::Tensor& base,
                           const at::Tensor& coefficients, const std::vector<at::Tensor>& history);
RowResidual row_residual_reference(const at::Tensor& z, const at::Tensor& fz);
at::Tensor row_distances_reference(const at::Tensor& a, const at::Tensor& b);

}  // namespace deq::ops
