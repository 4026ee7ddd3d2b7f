// Linear maps and the levels of explicit networks.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "deq/cells/linear.h"
#include "deq/cells/recurrent.h"
#include "deq/cells/tcn.h"
#include "tests/problems.h"

namespace deq {
namespace {

using at::Tensor;
using namespace testing;

TEST(Linear, AWeightHasTheDeviationThatWasAskedForNormalisedOrNot) {
  for (const bool normalised : {false, true}) {
    Linear linear(40, 60, false, normalised);
    for (const double std : {0.02, 0.5}) {
      linear.initialise(std);
      EXPECT_NEAR(linear.weight().std().item<double>() / std, 1, 0.1) << normalised;
      // Rows differ in length as those of random weights do, 1 / sqrt(2 in) of it.
      const Tensor lengths = linear.weight().norm(2, {1});
      EXPECT_GT((lengths.std() / lengths.mean()).item<double>(), 0.05) << normalised;
    }
  }
}

TEST(Tcn, DilationsDouble) {
  constexpr int64_t kPositions = 80, kKernel = 3;
  for (const int64_t level : {0, 1, 2, 3, 4}) {
    TcnCell cell(Tcn{.width = 32, .kernel = kKernel}, level);
    cell.initialise(0.5);
    cell.to(at::kDouble);
    const Tensor z = at::zeros({1, kPositions, 32}, at::kDouble);
    Tensor moved = z.clone();
    moved.select(1, 0).fill_(10);
    c10::NoGradGuard no_tape;
    const Bound f = cell.bind(z, {});
    const Tensor changed = (f(moved) - f(z)).abs().sum(2).view(-1);
    int64_t last = 0;
    for (int64_t t = 0; t < kPositions; ++t) {
      if (changed[t].item<double>() > 0) last = t;
    }
    EXPECT_EQ(last, 2 * (kKernel - 1) << level) << level;  // two convolutions
  }
}

TEST(Recurrent, DropsFeaturesOfAWholeSegmentInTraining) {
  Lstm options{{.width = 64}};
  options.dropout = 0.5;
  const auto cell = options.make({});
  cell->initialise(0.5);
  const Tensor z = randn({2, 5, 64}, at::kFloat, 7);
  const auto dropped = [&] { return cell->bind(z, {})(z).eq(0).to(at::kFloat); };
  const Tensor training = dropped();
  EXPECT_NEAR(training.mean().item<double>(), 0.5, 0.15);
  EXPECT_TRUE(at::equal(training, training.narrow(1, 0, 1).expand_as(training)));
  cell->eval();
  EXPECT_EQ(dropped().sum().item<double>(), 0);
}

}  // namespace
}  // namespace deq
