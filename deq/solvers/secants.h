#pragma once

#include <deque>

#include "deq/base/map.h"

namespace deq {

/// What the evaluations of a solve have learned of the Jacobian of g(z) = f(z) - z: with the
/// batch's last steps s_i = z_{i+1} - z_i and y_i = g_{i+1} - g_i, for each sample the inverse
/// nearest to -I with H Y = S (Anderson's; Fang and Saad 2009, type II)
///
///     H = -I + (S + Y) (Y^T Y)^{-1} Y^T ~ (J - I)^{-1}
///
/// whatever method made the steps. A sample that was done before them has learned nothing: -I.
class Secants {
 public:
  /// Of the last `memory` steps, 2 states each.
  explicit Secants(int64_t memory) : memory_(memory) {}

  /// f, whose evaluations are seen here; this must outlive it.
  Map watch(const Map& f);

  /// Takes the steps from what was seen, which is forgotten.
  void finish();

  /// -H^T g ~ (I - J^T)^{-1} g, of g's shape: what a solve of u = J^T u + g is looking for. g
  /// itself where nothing was learned.
  at::Tensor adjoint(const at::Tensor& g) const;

 private:
  struct Seen {
    at::Tensor z, fz;
  };
  at::Tensor see(const at::Tensor& z, const at::Tensor& fz);

  int64_t memory_;
  std::deque<Seen> seen_;
  std::vector<at::Tensor> differences_, sums_;  // of y_i and s_i + y_i, each (B, n)
};

}  // namespace deq
