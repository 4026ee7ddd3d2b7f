#pragma once

#include <vector>

#include "deq/base/map.h"

namespace deq {

/// What the evaluations of a solve have learned of the Jacobian of g(z) = f(z) - z: with a sample's
/// last steps s_i = z_{i+1} - z_i and y_i = g_{i+1} - g_i, the inverse nearest to -I with H Y = S
/// (Anderson's; Fang and Saad 2009, type II)
///
///     H = -I + (S + Y) (Y^T Y)^{-1} Y^T ~ (J - I)^{-1}
///
/// whatever method made the steps. Each sample has its own, however long the others take.
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
  at::Tensor see(const at::Tensor& z, const at::Tensor& fz);

  /// Where samples stood, by the number of evaluations that they have moved in since, (B, n) each.
  struct Seen {
    at::Tensor z, fz;
    at::Tensor known;  ///< (B, 1) bool: they had moved as often
  };
  Seen seen(int64_t ago) const;

  int64_t memory_;
  std::vector<at::Tensor> z_, fz_;  // memory + 1 slots of (B, n), in turn for each sample
  at::Tensor last_;                 // (B, n) of the latest evaluation
  std::vector<int64_t> count_;      // (B): evaluations in which it has moved
  std::vector<at::Tensor> differences_, sums_;  // of y_i and s_i + y_i, each (B, n)
};

}  // namespace deq
