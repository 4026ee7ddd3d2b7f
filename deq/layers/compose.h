// Networks as one equilibrium: two theorems of Bai, Kolter and Koltun (NeurIPS 2019), as Maps.
#pragma once

#include <functional>
#include <vector>

#include "deq/base/map.h"

namespace deq {

/// Several states side by side as one, along the last dimension, and the f that has it as its
/// equilibrium.
struct Composition {
  Map f;
  std::vector<int64_t> widths;  ///< of the parts
  at::Tensor start;             ///< zeros, a state to begin from

  operator Map() const { return f; }  // NOLINT: it is its f
  /// The parts of a state, with its tape.
  std::vector<at::Tensor> parts(const at::Tensor& z) const;
};

/// A feed-forward network h_1 = f_1(x), h_2 = f_2(h_1), ..., h_L as the equilibrium of
///
///     z = (h_1, ..., h_L) -> (f_1(x), f_2(h_1), ..., f_L(h_{L-1}))
///
/// whose Jacobian is nilpotent: plain iteration is exact after L steps from any start, to the last
/// bit, and the implicit gradient is back-propagation. Its adjoint is solved that way
/// (Map::Linearised::solve). f_1(x) is evaluated here, once, with its tape, and so are the widths
/// found; x (B, ..., X). Throws deq::Error without levels, and for a level that changes more than
/// the last dimension.
Composition as_equilibrium(const std::vector<Map>& levels, const at::Tensor& x);

/// (z_2, z_1) -> f_2(z_2, z_1).
using Above = std::function<at::Tensor(const at::Tensor& z2, const at::Tensor& z1)>;

/// Two equilibria, z_1 = f_1(z_1) and z_2 = f_2(z_2, z_1), as that of
///
///     (z_1, z_2) -> (f_1(z_1), f_2(z_2, z_1))
///
/// with the same solutions and gradients: solved together instead of one after the other. `like1`
/// and `like2` have the shapes and type of z_1 and z_2. Throws deq::Error where they differ in more
/// than the last dimension.
Composition stack(const Map& f1, const Above& f2, const at::Tensor& like1, const at::Tensor& like2);

}  // namespace deq
