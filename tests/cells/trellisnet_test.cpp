// A TrellisNet in both directions, against its equations written with LibTorch's convolutions.
#include "deq/cells/trellisnet.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include "deq/solvers/anderson.h"
#include "deq/solvers/sweep.h"
#include "tests/base/scratch.h"

namespace deq {
namespace {

using at::Tensor;

struct Case {
  int64_t kernel, dilation;
};

class BothDirections : public ::testing::TestWithParam<Case> {};

TEST_P(BothDirections, IsWhatItsEquationsSay) {
  const auto [K, d] = GetParam();
  at::manual_seed(3);
  const TrellisNet options{.hidden = 5,
                           .output = 3,
                           .input = 4,
                           .kernel = K,
                           .dilation = d,
                           .causal = false,
                           .weight_norm = false};
  TrellisNetCell cell(options);
  cell.initialise(0.4);
  cell.to(at::kDouble);
  cell.eval();
  c10::NoGradGuard no_tape;
  const int64_t B = 2, T = 11, H = 8, taps = 2 * K - 1;
  const Tensor x = at::randn({B, T, 4}, at::kDouble), z = at::randn({B, T, 2 * H}, at::kDouble);
  const auto weights = cell.named_parameters();
  const auto by_position = [](const Tensor& t) { return t.transpose(1, 2); };
  const Tensor u = at::conv1d(by_position(x), weights["inject.weight"].view({4 * H, 4, taps}),
                              weights["inject.bias"] + weights["conv.bias"], 1, K - 1);
  const Tensor h = z.narrow(2, 0, H), c = z.narrow(2, H, H);
  const Tensor sums = at::conv1d(by_position(h), weights["conv.weight"].view({4 * H, H, taps}), {},
                                 1, d * (K - 1), d);
  const auto gates = by_position(u + sums).chunk(4, 2);
  const Tensor before = at::constant_pad_nd(c.narrow(1, 0, T - 1), {0, 0, 1, 0});
  const Tensor now = gates[3].sigmoid() * before + gates[0].sigmoid() * gates[2].tanh();
  const Tensor expected = at::cat({gates[1].sigmoid() * now.tanh(), now}, 2);
  EXPECT_LT((cell.bind(x, {})(z) - expected).abs().max().item<double>(), 1e-12);
  EXPECT_EQ(cell.operations(B, T, 0), 2.0 * B * T * double(taps * H * 4 * H));
}

INSTANTIATE_TEST_SUITE_P(Kernels, BothDirections,
                         ::testing::Values(Case{2, 1}, Case{2, 3}, Case{3, 2}));

TEST(TrellisNetInBothDirections, HasNoPartsThatASweepCouldGoBy) {
  TrellisNetCell cell({.hidden = 5, .output = 3, .causal = false});
  const Tensor x = at::randn({1, 4, 3});
  const Bound f = cell.bind(x, {});
  EXPECT_FALSE(f.f.part());
  EXPECT_THROW(solve(f.f, at::zeros({1, 4, 16}), Sweep{}, {}), Error);
}

TEST(TrellisNetInBothDirections, RefusesAKernelThatReadsNothingAhead) {
  EXPECT_SAYS(testing::error_of([] { TrellisNetCell({.kernel = 1, .causal = false}); }),
              "cell-kernel = 1 with cell-causal = false; expected 2 or more");
}

}  // namespace
}  // namespace deq
