// Sums over the stages of a Runge-Kutta step, row by row.
//   A state is (R, n) contiguous; stages are k (S, R, n). Only the first `rows` rows are read and
//   written: a batch that shrinks keeps its memory. `scale` is one number per row, on the host. A
//   row's numbers are the same whatever rows stand beside it.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace deq::ops {

/// out = y + scale * sum_j weights[j] k[j], weights of zero left out; y may be undefined (zero),
/// and out may be y.
void stage_sum(const at::Tensor& out, const at::Tensor& y, const at::Tensor& k,
               const std::vector<double>& weights, const std::vector<double>& scale, int64_t rows);

/// One point of a continuous extension: row `to` of out, from row `row` of y and k.
struct StagePoint {
  int64_t row = 0, to = 0;
  double scale = 0;
};
/// The same sum at single points, out (..., n), weights (points, S).
void stage_points(const at::Tensor& out, const at::Tensor& y, const at::Tensor& k,
                  const std::vector<StagePoint>& points, const std::vector<double>& weights);

/// Its transpose: y and k receive what row `to` of g (..., n) passes on; points in their order.
void stage_points_transposed(const at::Tensor& y, const at::Tensor& k, const at::Tensor& g,
                             const std::vector<StagePoint>& points,
                             const std::vector<double>& weights);

/// k[j] += scale * weights[j] * g, the transpose of the sum.
void stage_spread(const at::Tensor& k, const at::Tensor& g, const std::vector<double>& weights,
                  const std::vector<double>& scale, int64_t rows);

/// How far two states may differ, by number: absolute (n) double plus relative of the larger.
struct Allowance {
  double relative = 0;
  at::Tensor absolute;
};
/// |scale * sum_j weights[j] k[j]| of each row in units of what is allowed, the root of the mean
/// square: not finite where anything in it, or in `next`, is not.
std::vector<double> stage_error(const at::Tensor& y, const at::Tensor& next, const at::Tensor& k,
                                const std::vector<double>& weights,
                                const std::vector<double>& scale, const Allowance& allowed,
                                int64_t rows);
/// The same norm of v (R, n), in units of what is allowed at y.
std::vector<double> allowed_norm(const at::Tensor& v, const at::Tensor& y, const Allowance& allowed,
                                 int64_t rows);

/// The plain references, on any device; differentiable.
at::Tensor stage_sum_reference(const at::Tensor& y, const at::Tensor& k,
                               const std::vector<double>& weights, const std::vector<double>& scale,
                               int64_t rows);
std::vector<double> stage_error_reference(const at::Tensor& y, const at::Tensor& next,
                                          const at::Tensor& k, const std::vector<double>& weights,
                                          const std::vector<double>& scale,
                                          const Allowance& allowed, int64_t rows);

}  // namespace deq::ops
