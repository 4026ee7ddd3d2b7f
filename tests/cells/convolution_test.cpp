#include "deq/cells/convolution.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/base/scratch.h"

namespace deq {
namespace {

using at::Tensor;
using testing::error_of;

std::map<std::string, Tensor> parameters(const Cell& cell) {
  std::map<std::string, Tensor> found;
  for (const auto& item : cell.named_parameters()) found[item.key()] = item.value();
  return found;
}

/// A convolution of kernel 3 over a grid, square by square.
Tensor plainly(const Tensor& y, const Tensor& weight) {  // (B, H, W, D)
  const int64_t H = y.size(1), W = y.size(2);
  Tensor out = at::zeros_like(y);
  for (int64_t i = 0; i < H; ++i) {
    for (int64_t j = 0; j < W; ++j) {
      for (int64_t a = 0; a < 3; ++a) {
        for (int64_t b = 0; b < 3; ++b) {
          const int64_t r = i + a - 1, c = j + b - 1;
          if (r < 0 || r >= H || c < 0 || c >= W) continue;
          out.select(1, i).select(1, j).add_(
              at::matmul(y.select(1, r).select(1, c), weight.select(3, b).select(2, a).t()));
        }
      }
    }
  }
  return out;
}

TEST(Convolution, HasTheFormulasOfItsDocumentation) {
  for (const ConvolutionNorm norm : {ConvolutionNorm::None, ConvolutionNorm::Rms}) {
    for (const int64_t count : {1, 3, 5}) {
      at::manual_seed(count);
      ConvolutionCell cell({.width = 4, .convolutions = count, .dimensions = 2, .norm = norm});
      cell.initialise(0.4);
      cell.to(at::kDouble);
      const auto p = parameters(cell);
      const Tensor x = at::randn({2, 3, 5, 4}, at::kDouble), z = at::randn_like(x);
      c10::NoGradGuard no_tape;
      const auto weight = [&](int64_t i) { return p.at("weight" + std::to_string(i)); };
      const bool published = norm == ConvolutionNorm::None;
      const auto last = [&](const Tensor& y) { return published ? y.relu() : y; };
      Tensor y = plainly(z, weight(0)) + plainly(x, p.at("inject"));
      if (count == 1) y = last(y);
      for (int64_t i = 1; i < count; i += 2)
        y = last(y + plainly(plainly(y, weight(i)).relu(), weight(i + 1)));
      const Tensor sum = z + y;
      const Tensor expected = published ? y : sum / (sum.square().mean(3, true) + 1e-6).sqrt();
      EXPECT_LT((cell.bind(x, {})(z) - expected).abs().max().item<double>(), 1e-12) << count;
    }
  }
}

TEST(Convolution, RefusesOtherShapes) {
  ConvolutionCell grids({.width = 4, .dimensions = 2});
  EXPECT_SAYS(error_of([&] {
                grids.bind(at::zeros({2, 5, 4}), {});
              }),
              "x has shape [2, 5, 4]; expected (batch, rows, columns, 4), as cell-dimensions = 2");
  EXPECT_SAYS(error_of([] { ConvolutionCell({.kernel = 4}); }), "cell-kernel = 4");
  EXPECT_SAYS(error_of([] { ConvolutionCell({.convolutions = 2}); }), "cell-convolutions = 2");
}

}  // namespace
}  // namespace deq
