#include "deq/ops/spectral.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace deq {
namespace {

using at::Tensor;

Tensor randn(std::vector<int64_t> sizes, double std = 1) {
  return std * at::randn(sizes, at::kDouble);
}

/// y[o, p] = sum_a K[o, i, a] z[i, p + a - centre], places on a torus: by rolling.
Tensor rolled(const Tensor& z, const Tensor& kernel) {
  Tensor y = at::zeros({z.size(0), z.size(1), z.size(2), kernel.size(0)}, z.options());
  for (int64_t a = 0; a < kernel.size(2); ++a)
    for (int64_t b = 0; b < kernel.size(3); ++b)
      y = y + at::linear(at::roll(z, {kernel.size(2) / 2 - a, kernel.size(3) / 2 - b}, {1, 2}),
                         kernel.select(3, b).select(2, a));
  return y;
}

TEST(Spectral, ProductsAtFrequenciesAreConvolutions) {
  for (const auto& [rows, columns] : {std::pair(1, 1), std::pair(1, 6), std::pair(1, 7),
                                      std::pair(4, 5), std::pair(5, 4), std::pair(2, 2)}) {
    const ops::Torus torus{rows, columns};
    const Tensor z = randn({2, rows, columns, 3});
    const Tensor spectrum = ops::to_spectrum(torus, z);
    EXPECT_EQ(spectrum.size(0), torus.frequencies());
    EXPECT_LT((ops::from_spectrum(torus, spectrum) - z).abs().max().item<double>(), 1e-13);
    const Tensor kernel = randn({4, 3, rows == 1 ? 1 : 3, 3});
    const auto weight = ops::spectral_weight(ops::transfer(torus, kernel));
    const Tensor y = ops::from_spectrum(torus, ops::spectral_product(spectrum, weight));
    EXPECT_LT((y - rolled(z, kernel)).abs().max().item<double>(), 1e-12) << rows << " " << columns;
  }
}

}  // namespace
}  // namespace deq
