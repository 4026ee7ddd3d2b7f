#pragma once

#include "deq/cells/energy_terms.h"
#include "deq/cells/linear.h"

namespace deq {

/// Of sequences or grids, with zeros around them; s the activation, sums over places t and units:
///
///     E(z, x) = |z|^2 / 2 + sum_t <v, s(A s(W * z + U * x + b) + c)>_t
///
/// W and U convolutions of `kernel` places a side, A and v of one place.
struct EnergyConvolution {
  static constexpr const char* name = "conv";
  int64_t width = 32;
  int64_t inner = 64;
  int64_t kernel = 3;
  Activation activation = Activation::Softplus;

  static void fields(auto& self, auto&& field) {
    field("width", self.width, "features of a place", between(1, 1 << 16));
    field("inner", self.inner, "units of s(W z + U x + b)", between(1, 1 << 20));
    field("kernel", self.kernel, "places a side that a convolution reads; odd", between(1, 255));
    field("activation", self.activation, "s; with second derivatives: not relu");
  }

  std::shared_ptr<EnergyTerm> make(const CellPlace& place, int64_t dimensions) const;
};

/// E of sequences x (B, T, width) or grids (B, H, W, width), zeros around them.
class EnergyConvolutionTerm final : public EnergyTerm {
 public:
  EnergyConvolutionTerm(const EnergyConvolution& options, int64_t dimensions);

  EnergyOf bind(const at::Tensor& x) override;
  void initialise(double std) override;
  double operations(int64_t batch, int64_t positions) const override;
  int64_t width() const override { return options_.width; }

 private:
  EnergyConvolution options_;
  int64_t dimensions_;
  std::shared_ptr<Linear> state_, inject_, mix_;  // taps are a row's first index, features its last
  at::Tensor weight_;                             // v
};

}  // namespace deq
