// At which steps each halting rule ends the made states, and where it leaves them.
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include <cmath>

#include "deq/halting/act.h"
#include "deq/halting/change.h"
#include "deq/halting/ponder.h"
#include "deq/halting/residual.h"
#include "deq/halting/right_head.h"
#include "deq/halting/unit.h"
#include "tests/halting/made.h"

namespace deq {
namespace {

using at::Tensor;
using testing::ByHand;
using testing::kB;
using testing::kD;
using testing::kN;
using testing::kT;
using testing::Made;

/// The steps at which a rule halts each sample of the made states, and where they are left.
struct Walked {
  std::vector<int64_t> steps;
  Tensor left;

  Walked(const Halting& rule, const Made& made, int64_t first = 0) {
    int64_t n = 0;
    Readout readout;
    readout.logits = [&](const Tensor&) { return made.logits.select(1, n); };
    const auto judge = rule->judge(readout, first);
    steps.assign(size_t(made.logits.size(0)), 0);
    left = at::zeros_like(made.states[0]);
    for (; n < made.states.size(0); ++n) {
      const PlainStep step{n > 0 ? made.states[n - 1] : at::zeros_like(left), made.states[n],
                           made.states[n]};
      const Tensor now = judge->halts(step);
      const Tensor where = judge->left(step, now);
      for (size_t b = 0; b < steps.size(); ++b) {
        const bool ends = now[int64_t(b)].item<bool>() || n + 1 == made.states.size(0);
        if (steps[b] != 0 || !ends) continue;
        steps[b] = n + 1;
        left[int64_t(b)].copy_(where[int64_t(b)]);
      }
    }
  }
};

TEST(Act, AtTestItDoesWhatItWasTrainedToDo) {
  const Made made;
  const Walked walked(AdaptiveHalting{.threshold = 0.8}, made);
  for (int64_t b = 0; b < kB; ++b) {
    const ByHand own(made.logits[b], 0.8);
    EXPECT_EQ(walked.steps[size_t(b)], own.steps);
    Tensor mean = at::zeros({kT, kD}, at::kDouble);
    for (int64_t n = 0; n < own.steps; ++n) mean += own.p[size_t(n)] * made.states[n][b];
    EXPECT_LT((walked.left[b] - mean).abs().max().item<double>(), 1e-12);
  }
}

TEST(Ponder, AtTestItHaltsWhereHavingHaltedIsLikelyEnough) {
  const Made made;
  const Tensor p = log_halting(made.logits).exp();
  for (const double threshold : {0.2, 0.5, 0.9}) {
    const Walked walked(PonderHalting{.threshold = threshold}, made);
    for (int64_t b = 0; b < kB; ++b) {
      int64_t n = 0;
      double sum = 0;
      while (n < kN && sum < threshold) sum += p[b][n++].item<double>();
      EXPECT_EQ(walked.steps[size_t(b)], n) << threshold;
      EXPECT_TRUE(at::equal(walked.left[b], made.states[n - 1][b]));
    }
  }
}

TEST(Ponder, StepsThatAreDrawnAreDistributedAsTheyWereTrained) {
  constexpr int64_t kMany = 4000;
  Made made;
  made.logits = made.logits.narrow(0, 0, 1).expand({kMany, kN}).contiguous();
  made.states = at::zeros({kN, kMany, 1, 1}, at::kDouble);
  const Halting rule = PonderHalting{.draw = 3};
  const Walked all(rule, made);
  const Tensor p = log_halting(made.logits).exp()[0];
  for (int64_t n = 1; n <= kN; ++n) {
    const double share = double(std::count(all.steps.begin(), all.steps.end(), n)) / kMany;
    const double expected = p[n - 1].item<double>();
    EXPECT_NEAR(share, expected, 4 * std::sqrt(expected * (1 - expected) / kMany) + 1e-9) << n;
  }
  Made some = made;
  some.logits = made.logits.narrow(0, 0, 6);
  some.states = made.states.narrow(1, 0, 6);
  const std::vector<int64_t> own(all.steps.begin() + 100, all.steps.begin() + 106);
  EXPECT_EQ(Walked(rule, some, 100).steps, own) << "a problem's draw is its own, in any batch";
  EXPECT_NE(Walked(PonderHalting{.draw = 4}, made).steps, all.steps);
}

TEST(Head, AtTestItHaltsWhereItIsSureEnough) {
  const Made made;
  const Walked walked(RightHead{.threshold = 0.6}, made);
  const ChainLoss loss = RightHead{.threshold = 0.6}.loss(made.chain());
  for (int64_t b = 0; b < kB; ++b) {
    const int64_t n = walked.steps[size_t(b)];
    EXPECT_EQ(double(n), loss.steps[b].item<double>());
    EXPECT_TRUE(at::equal(walked.left[b], made.states[n - 1][b]));
  }
}

TEST(Residual, ASampleHaltsAtTheStateThatMovesLittle) {
  const auto judge = HaltByResidual{.threshold = 0.1}.judge({}, 0);
  const Tensor z = at::ones({3, 2, 2}), moved = z.clone();
  moved[1].mul_(1.05);
  moved[2].mul_(1.5);
  const PlainStep step{z, moved, z + 0.1 * (moved - z)};
  const Tensor halts = judge->halts(step);
  EXPECT_TRUE(at::equal(halts, at::tensor(std::vector<int64_t>{1, 1, 0}).to(at::kBool)))
      << "by f, however little a damped step moves";
  const Tensor left = judge->left(step, halts);
  EXPECT_TRUE(at::equal(left[1], z[1]));
  EXPECT_TRUE(at::equal(left[2], step.next[2]));
}

TEST(Change, ASampleHaltsWhenNoAnswerMovesTwiceInARow) {
  Readout readout;
  readout.log_probabilities = [](const Tensor& z) { return z.log_softmax(-1); };
  const auto judge = HaltByChange{.threshold = 0.05}.judge(readout, 0);
  const Tensor still = at::zeros({2, 3, 4});
  Tensor other = still.clone();
  other[1][2][0] = 1;  // total variation 0.23 in one place
  const auto halts = [&](const Tensor& z) {
    const Tensor now = judge->halts({z, z, z});
    return std::vector<bool>{now[0].item<bool>(), now[1].item<bool>()};
  };
  using Two = std::vector<bool>;
  EXPECT_EQ(halts(still), (Two{false, false}));
  EXPECT_EQ(halts(still), (Two{false, false}));
  EXPECT_EQ(halts(other), (Two{true, false}));
  EXPECT_EQ(halts(other), (Two{true, false}));
  EXPECT_EQ(halts(other), (Two{true, true}));
}

TEST(Rules, AHigherThresholdNeverHaltsEarlier) {
  const Made made;
  const auto of = [&](double threshold, size_t which) -> Halting {
    if (which == 0) return AdaptiveHalting{.threshold = threshold};
    if (which == 1) return PonderHalting{.threshold = threshold};
    return RightHead{.threshold = threshold};
  };
  for (size_t which = 0; which < 3; ++which) {
    std::vector<int64_t> before(kB, 0);
    int64_t first = 0, last = 0;
    for (const double threshold : {0.1, 0.4, 0.7, 0.95}) {
      const Walked walked(of(threshold, which), made);
      last = 0;
      for (size_t b = 0; b < size_t(kB); ++b) {
        EXPECT_GE(walked.steps[b], before[b]);
        last += walked.steps[b];
      }
      before = walked.steps;
      if (first == 0) first = last;
    }
    EXPECT_GT(last, first) << which;
  }
}

TEST(Unit, TakesTheLeastPlaceOrTheMeanAndNoOtherSample) {
  for (const bool least : {true, false}) {
    at::manual_seed(5);
    HaltingUnit unit(kD, least);
    unit.initialise(1.0, -0.5);
    const Tensor out = at::randn({kB, kT, kD});
    const Tensor found = unit.forward(out);
    const Tensor weight = unit.named_parameters()["weight"];
    for (int64_t b = 0; b < kB; ++b) {
      std::vector<double> places;
      for (int64_t t = 0; t < kT; ++t)
        places.push_back((out[b][t] * weight).sum().item<double>() - 0.5);
      const double expected = least ? *std::min_element(places.begin(), places.end())
                                    : (places[0] + places[1] + places[2]) / 3;
      EXPECT_NEAR(found[b].item<double>(), expected, 1e-5);
      EXPECT_TRUE(at::equal(unit.forward(out.narrow(0, b, 1))[0], found[b])) << "the same bits";
    }
  }
}

}  // namespace
}  // namespace deq
