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
#include "deq/halting/unit.h"

namespace deq {
namespace {

using at::Tensor;

constexpr int64_t kB = 5, kN = 7, kT = 3, kD = 4;

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

Tensor doubles(at::IntArrayRef shape, uint64_t seed) {
  at::manual_seed(seed);
  return at::randn(shape, at::kDouble);
}

/// States of some steps, numbers of a unit, and a loss of each state that is no linear one.
struct Made {
  Tensor states = doubles({kN, kB, kT, kD}, 1);  // of all steps
  Tensor logits = doubles({kB, kN}, 2);

  static Tensor nats_of(const Tensor& z) { return z.square().flatten(1).sum(1) + z[0].numel(); }
  static Tensor right_of(const Tensor& z) { return z.flatten(1).sum(1).gt(0); }

  Chain chain() const {
    Chain chain;
    for (int64_t n = 0; n < states.size(0); ++n) chain.states.push_back(states[n]);
    chain.logits = logits;
    const auto each = [](auto of) {
      return [of](const std::vector<Tensor>& some) {
        std::vector<Tensor> found;
        for (const Tensor& z : some) found.push_back(of(z));
        return at::stack(found, 1);
      };
    };
    chain.nats = each(nats_of);
    chain.right = each(right_of);
    return chain;
  }
};

/// ACT of one sample, as Graves 2016 writes it.
struct ByHand {
  std::vector<double> p;
  double remainder = 1;
  int64_t steps = 0;

  ByHand(const Tensor& logits, double threshold) {
    double sum = 0;
    for (int64_t n = 0; n < logits.size(0); ++n) {
      const double h = sigmoid(logits[n].item<double>());
      ++steps;
      if (sum + h >= threshold || n + 1 == logits.size(0)) break;
      p.push_back(h);
      sum += h;
    }
    remainder = 1 - sum;
    p.push_back(remainder);
  }
};

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

std::vector<Halting> learned() {
  return {AdaptiveHalting{.threshold = 0.8, .cost = 0.3}, PonderHalting{.prior = 0.3, .weight = 2},
          RightHead{.weight = 0.7}};
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
