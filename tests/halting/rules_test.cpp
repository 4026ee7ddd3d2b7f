// What each halting rule makes of a chain of states, beside plain loops, closed forms and finite
// differences.
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include <cmath>

#include "deq/halting/act.h"
#include "deq/halting/change.h"
#include "deq/halting/ponder.h"
#include "deq/halting/residual.h"
#include "deq/halting/right_head.h"
#include "tests/halting/made.h"

namespace deq {
namespace {

using at::Tensor;
using testing::ByHand;
using testing::doubles;
using testing::kB;
using testing::kD;
using testing::kN;
using testing::kT;
using testing::learned;
using testing::Made;
using testing::sigmoid;

TEST(Act, WeightsSumToOneAndTheRemainderIsWhatIsLeft) {
  bool early = false, late = false;
  for (const double threshold : {0.3, 0.9, 0.99}) {
    const Tensor logits = doubles({40, kN}, 3) - 1;
    const AdaptiveWeights found = adaptive_weights(logits, threshold);
    EXPECT_LT((found.p.sum(1) - 1).abs().max().item<double>(), 1e-12);
    for (int64_t b = 0; b < logits.size(0); ++b) {
      const ByHand own(logits[b], threshold);
      EXPECT_EQ(found.steps[b].item<double>(), double(own.steps));
      EXPECT_NEAR(found.remainder[b].item<double>(), own.remainder, 1e-12);
      for (int64_t n = 0; n < kN; ++n)
        EXPECT_NEAR(found.p[b][n].item<double>(), n < own.steps ? own.p[size_t(n)] : 0, 1e-12);
      early = early || own.steps == 1;
      late = late || own.steps == kN;
    }
  }
  EXPECT_TRUE(early && late);
}

TEST(Act, TheLossIsThatOfTheMeanStateAndThePonderCost) {
  const Made made;
  const AdaptiveHalting rule{.threshold = 0.8, .cost = 0.3};
  const ChainLoss found = rule.loss(made.chain());
  double cost = 0;
  for (int64_t b = 0; b < kB; ++b) {
    const ByHand own(made.logits[b], 0.8);
    Tensor mean = at::zeros({1, kT, kD}, at::kDouble);
    for (int64_t n = 0; n < own.steps; ++n) mean += own.p[size_t(n)] * made.states[n][b];
    EXPECT_NEAR(found.nats[b].item<double>(), Made::nats_of(mean).item<double>(), 1e-10);
    cost += (double(own.steps) + own.remainder) / double(kB);
    EXPECT_EQ(found.steps[b].item<double>(), double(own.steps));
  }
  EXPECT_NEAR(found.beside.item<double>(), 0.3 * cost, 1e-12);
}

TEST(Ponder, ProbabilitiesAreThoseOfHaltingAtEachStep) {
  const Tensor logits = doubles({kB, kN}, 4), p = log_halting(logits).exp();
  for (int64_t b = 0; b < kB; ++b) {
    double open = 1;
    for (int64_t n = 0; n < kN; ++n) {
      const double lambda = n + 1 == kN ? 1 : sigmoid(logits[b][n].item<double>());
      EXPECT_NEAR(p[b][n].item<double>(), open * lambda, 1e-12);
      open *= 1 - lambda;
    }
  }
  EXPECT_LT((p.sum(1) - 1).abs().max().item<double>(), 1e-12);
}

/// Where lambda is q at every step, each step up to the last adds its share of log(q / prior), and
/// each step that goes on log((1 - q) / (1 - prior)).
TEST(Ponder, TheDivergenceOfOneGeometricFromAnotherIsItsClosedForm) {
  for (const double q : {0.05, 0.2, 0.7}) {
    for (const double prior : {0.05, 0.2, 0.6}) {
      const Tensor logits = at::full({2, kN}, std::log(q / (1 - q)), at::kDouble);
      const Tensor found = divergence_from_geometric(log_halting(logits), prior);
      const double halted = 1 - std::pow(1 - q, kN - 1);  // before the last
      const double goes_on = (1 - q) / q * halted;        // steps on which it does, expected
      const double expected =
          halted * std::log(q / prior) + goes_on * std::log((1 - q) / (1 - prior));
      EXPECT_NEAR(found[1].item<double>(), expected, 1e-12) << q << " " << prior;
      if (q == prior) {
        EXPECT_NEAR(found[0].item<double>(), 0, 1e-14);
      }
    }
  }
}

TEST(Ponder, TheLossIsTheExpectedOneAndTheDivergence) {
  const Made made;
  const PonderHalting rule{.prior = 0.3, .weight = 0.7};
  const ChainLoss found = rule.loss(made.chain());
  const Tensor p = log_halting(made.logits).exp();
  for (int64_t b = 0; b < kB; ++b) {
    double nats = 0, steps = 0;
    for (int64_t n = 0; n < kN; ++n) {
      const double share = p[b][n].item<double>();
      nats += share * Made::nats_of(made.states[n])[b].item<double>();
      steps += share * double(n + 1);
    }
    EXPECT_NEAR(found.nats[b].item<double>(), nats, 1e-10);
    EXPECT_NEAR(found.steps[b].item<double>(), steps, 1e-12);
  }
  EXPECT_NEAR(found.beside.item<double>(),
              0.7 * divergence_from_geometric(log_halting(made.logits), 0.3).mean().item<double>(),
              1e-12);
}

TEST(Head, TheLossIsTheLastStatesAndTheCrossEntropyOfBeingRight) {
  const Made made;
  const RightHead rule{.threshold = 0.6, .weight = 0.25};
  const ChainLoss found = rule.loss(made.chain());
  double entropy = 0;
  int64_t right = 0;
  for (int64_t b = 0; b < kB; ++b) {
    int64_t steps = kN;
    for (int64_t n = kN - 1; n >= 0; --n) {
      const double q = sigmoid(made.logits[b][n].item<double>());
      const bool is_right = Made::right_of(made.states[n])[b].item<bool>();
      entropy -= std::log(is_right ? q : 1 - q) / double(kB * kN);
      right += is_right;
      if (q > 0.6) steps = n + 1;
    }
    EXPECT_EQ(found.steps[b].item<double>(), double(steps));
    EXPECT_NEAR(found.nats[b].item<double>(), Made::nats_of(made.states[kN - 1])[b].item<double>(),
                1e-12);
  }
  EXPECT_TRUE(right > 0 && right < kB * kN);
  EXPECT_NEAR(found.beside.item<double>(), 0.25 * entropy, 1e-12);
}

TEST(Rules, GradientsAreThoseOfFiniteDifferences) {
  for (const Halting& rule : learned()) {
    Made made;
    const auto loss = [&] {
      const ChainLoss found = rule->loss(made.chain());
      return found.nats.sum() + found.beside;
    };
    for (Tensor* of : {&made.logits, &made.states}) {
      of->requires_grad_(true);
      loss().backward();
      const Tensor gradient = of->grad().clone();
      of->requires_grad_(false);
      at::manual_seed(9);
      const Tensor direction = at::randn(of->sizes(), at::kDouble);
      constexpr double kStep = 1e-6;
      const Tensor before = of->clone();
      *of = before + kStep * direction;
      const double above = loss().item<double>();
      *of = before - kStep * direction;
      const double below = loss().item<double>();
      *of = before;
      const double expected = (above - below) / (2 * kStep);
      EXPECT_NEAR((gradient * direction).sum().item<double>(), expected,
                  1e-7 * (1 + std::abs(expected)))
          << rule.name();
    }
  }
}

}  // namespace
}  // namespace deq
