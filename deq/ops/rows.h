// The solvers' two passes over memory: inner products with a history of states, and mixtures of
// one.
//   R rows of n numbers; a history is a list of m states, each (R, n) contiguous. Rows may be left
//   out (R flags; none: empty): nothing of theirs is read.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace deq::ops {

/// out[r, i] = <history[i][r, :], g[r, :]>, (R, m) double; anything in rows that are left out. One
/// pass over the history.
at::Tensor row_dots(const std::vector<at::Tensor>& history, const at::Tensor& g,
                    const std::vector<char>& left_out = {});

/// base + sum_i coefficients[r, i] history[i][r, :], (R, n); anything in rows that are left out.
/// One pass over the history. `coefficients` is (R, m) double; `base` may be undefined (zero).
at::Tensor row_mix(const at::Tensor& coefficients, const std::vector<at::Tensor>& history,
                   const at::Tensor& base = {}, const std::vector<char>& left_out = {});

/// a in the rows that are chosen (R flags), b in the others; both (R, n). No arithmetic: NaN does
/// not spread.
at::Tensor row_where(const std::vector<char>& chosen, const at::Tensor& a, const at::Tensor& b);

/// The residual of every row, g = fz - z, and its size: norms (R, 2) double holds |g| and |fz|, the
/// same numbers whatever other rows there are. One pass over both.
struct RowResidual {
  at::Tensor g, norms;
};
RowResidual row_residual(const at::Tensor& z, const at::Tensor& fz);

/// The plain references, on any device and type.
at::Tensor row_dots_reference(const std::vector<at::Tensor>& history, const at::Tensor& g);
at::Tensor row_mix_reference(const at::Tensor& coefficients, const std::vector<at::Tensor>& history,
                             const at::Tensor& base = {});
RowResidual row_residual_reference(const at::Tensor& z, const at::Tensor& fz);

}  // namespace deq::ops
