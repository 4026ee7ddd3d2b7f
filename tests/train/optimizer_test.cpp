// Methods of descent beside LibTorch's own, and RAdam beside its paper; schedules beside formulas.
#include "deq/train/optimizer.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/optim/adam.h>
#include <torch/optim/adamw.h>
#include <torch/optim/sgd.h>

#include <cmath>

#include "deq/train/gradient_norm.h"
#include "deq/train/schedule.h"
#include "tests/problems.h"

namespace deq {
namespace {

using at::Tensor;

constexpr int kSteps = 25;

/// A loss that is no quadratic, of two parameters; the second has no gradient in every third step.
Tensor loss_of(const Tensor& a, const Tensor& b, int step) {
  Tensor loss = (a * a * a.cos()).sum() + (a.sin() * double(step % 4)).sum();
  if (step % 3 != 2) loss = loss + (b.square().square() * (1 + step % 2)).sum();
  return loss;
}

struct Parameters {
  Tensor a = testing::randn({3, 2}, at::kDouble, 11).requires_grad_(true);
  Tensor b = testing::randn({4}, at::kDouble, 12).requires_grad_(true);
};

/// `rates` has one for each step.
Parameters descended(const Optimizer& optimizer, const std::vector<double>& rates) {
  Parameters p;
  Descent descent(optimizer, {{"a", p.a}, {"b", p.b}});
  for (int step = 0; step < int(rates.size()); ++step) {
    descent.zero_gradients();
    loss_of(p.a, p.b, step).backward();
    descent.step(rates[size_t(step)]);
  }
  return p;
}

/// The same by an optimiser of LibTorch's, which leaves out a parameter without a gradient too.
template <class Theirs, class Options>
Parameters descended_by_torch(Options options, const std::vector<double>& rates) {
  Parameters p;
  Theirs theirs({p.a, p.b}, options);
  for (int step = 0; step < int(rates.size()); ++step) {
    p.a.mutable_grad() = Tensor();
    p.b.mutable_grad() = Tensor();
    loss_of(p.a, p.b, step).backward();
    static_cast<Options&>(theirs.param_groups()[0].options()).lr(rates[size_t(step)]);
    theirs.step();
  }
  return p;
}

std::vector<double> rising(double rate) {
  std::vector<double> rates;
  for (int step = 0; step < kSteps; ++step) rates.push_back(rate * (1 + 0.1 * step));
  return rates;
}

void expect_equal(const Parameters& mine, const Parameters& theirs) {
  const Parameters start;
  EXPECT_GT(testing::largest(theirs.a - start.a), 0.05);
  EXPECT_LT(testing::largest(mine.a - theirs.a), 1e-10);
  EXPECT_LT(testing::largest(mine.b - theirs.b), 1e-10);
}

/// Without the gaps: there LibTorch counts each parameter's steps, deq the run's.
Tensor always(const Tensor& a, int step) { return (a * a * a.cos()).sum() * (1 + step % 3); }

template <class Theirs, class Options>
void expect_moments_as_torch(const Optimizer& optimizer, Options options) {
  const auto rates = rising(0.02);
  const Tensor mine = Parameters().a, theirs = Parameters().a;
  Descent descent(optimizer, {{"a", mine}});
  Theirs other({theirs}, options);
  for (int step = 0; step < kSteps; ++step) {
    descent.zero_gradients();
    theirs.mutable_grad() = Tensor();
    always(mine, step).backward();
    always(theirs, step).backward();
    descent.step(rates[size_t(step)]);
    static_cast<Options&>(other.param_groups()[0].options()).lr(rates[size_t(step)]);
    other.step();
    ASSERT_LT(testing::largest(mine - theirs), 1e-10) << step;
  }
  EXPECT_GT(testing::largest(mine - Parameters().a), 0.05);
}

TEST(Descent, SgdIsLibTorchs) {
  for (const double momentum : {0.0, 0.7}) {
    for (const double decay : {0.0, 0.1}) {
      expect_equal(
          descended(Sgd{.momentum = momentum, .weight_decay = decay}, rising(0.01)),
          descended_by_torch<torch::optim::SGD>(
              torch::optim::SGDOptions(0.1).momentum(momentum).weight_decay(decay), rising(0.01)));
    }
  }
}

TEST(Descent, AdamIsLibTorchs) {
  for (const double decay : {0.0, 0.1}) {
    expect_moments_as_torch<torch::optim::Adam>(
        Adam{{.beta1 = 0.8, .beta2 = 0.95, .epsilon = 1e-3, .weight_decay = decay}},
        torch::optim::AdamOptions(0.1).betas({0.8, 0.95}).eps(1e-3).weight_decay(decay));
  }
  expect_moments_as_torch<torch::optim::Adam>(Adam{}, torch::optim::AdamOptions(0.1));
}

TEST(Descent, AdamWIsLibTorchs) {
  for (const double decay : {0.0, 0.3}) {
    expect_moments_as_torch<torch::optim::AdamW>(
        AdamW{{.beta1 = 0.8, .beta2 = 0.95, .epsilon = 1e-3, .weight_decay = decay}},
        torch::optim::AdamWOptions(0.1).betas({0.8, 0.95}).eps(1e-3).weight_decay(decay));
  }
}

/// Liu et al. 2020, Algorithm 2, of one number; the variance is tractable where rho > 4 there, and
/// where rho > 5 in the authors' code and everyone's since.
TEST(Descent, RAdamIsThePapers) {
  for (const double beta2 : {0.9, 0.99, 0.999}) {
    const double beta1 = 0.85, epsilon = 1e-4, decay = 0.05;
    Tensor w = at::full({1}, 1.5, at::kDouble).requires_grad_(true);
    Descent descent(
        RAdam{{.beta1 = beta1, .beta2 = beta2, .epsilon = epsilon, .weight_decay = decay}},
        {{"w", w}});
    double x = 1.5, m = 0, v = 0;
    int plain = 0, between = 0;
    for (int t = 1; t <= kSteps; ++t) {
      descent.zero_gradients();
      (w.square() * w.cos()).sum().backward();
      const double g = 2 * x * std::cos(x) - x * x * std::sin(x) + decay * x;
      m = beta1 * m + (1 - beta1) * g;
      v = beta2 * v + (1 - beta2) * g * g;
      const double mean = m / (1 - std::pow(beta1, t));
      const double longest = 2 / (1 - beta2) - 1;
      const double length = longest - 2 * t * std::pow(beta2, t) / (1 - std::pow(beta2, t));
      between += length > 4 && length <= 5;
      const double rate = 0.01 * t;
      if (length > 5) {
        const double r = std::sqrt((length - 4) / (longest - 4) * (length - 2) / (longest - 2) *
                                   longest / length);
        x -= rate * r * mean / (std::sqrt(v / (1 - std::pow(beta2, t))) + epsilon);
      } else {
        ++plain;
        x -= rate * mean;
      }
      descent.step(rate);
      ASSERT_NEAR(w.item<double>(), x, 1e-10) << beta2 << ", step " << t;
    }
    EXPECT_GT(plain, 0);
    EXPECT_GT(between, 0) << "nothing tells a threshold of 4 from one of 5";
  }
}

TEST(Descent, ClipsToTheLimitAndNoFurther) {
  const auto clipped = [](double limit) {
    Parameters p;
    Descent descent(Sgd{}, {{"a", p.a}, {"b", p.b}});
    (p.a.sum() * 3 + p.b.sum() * 4).backward();
    const double before = descent.clip(limit);
    EXPECT_NEAR(before, std::sqrt(6 * 9.0 + 4 * 16.0), 1e-12);
    EXPECT_NEAR((p.a.grad()[0][0] / p.b.grad()[0]).item<double>(), 0.75, 1e-12);
    return descent.clip(0) / before;
  };
  const double norm = std::sqrt(118.0);
  EXPECT_NEAR(clipped(0), 1, 1e-12);
  EXPECT_NEAR(clipped(1.01 * norm), 1, 1e-12);
  EXPECT_NEAR(clipped(0.99 * norm), 0.99, 1e-12);
  EXPECT_NEAR(clipped(0.25), 0.25 / norm, 1e-12);
}

TEST(Schedule, IsItsFormula) {
  const int64_t warmup = 10, steps = 50;
  const auto rate_of = [&](const Decay& decay, int64_t step) {
    return Schedule({.rate = 2.0, .warmup = warmup, .decay = decay}, steps).rate(step);
  };
  for (int64_t step = 1; step <= steps; ++step) {
    const double t = double(step);
    const double rising = 2.0 * t / 10;
    const auto then = [&](double later) { return step < warmup ? rising : later; };
    EXPECT_NEAR(rate_of(ConstantDecay{}, step), then(2.0), 1e-12);
    for (const double floor : {0.0, 0.3}) {
      const double cosine = 0.5 * (1 + std::cos(M_PI * (t - 10) / 40));
      EXPECT_NEAR(rate_of(CosineDecay{.floor = floor}, step),
                  then(2.0 * (floor + (1 - floor) * cosine)), 1e-12);
    }
    EXPECT_NEAR(rate_of(InverseSquareRootDecay{}, step), then(2.0 * std::sqrt(10 / t)), 1e-12);
  }
  EXPECT_NEAR(rate_of(CosineDecay{.floor = 0.3}, steps + 20), 0.6, 1e-12) << "held behind the end";
  const Schedule cold({.rate = 2.0, .decay = InverseSquareRootDecay{}}, steps);
  EXPECT_NEAR(cold.rate(4), 1.0, 1e-12);
}

TEST(Schedule, PlateausLowerItAgainAndAgain) {
  for (const int64_t patience : {0, 2}) {
    Schedule schedule({.rate = 1.0, .decay = PlateauDecay{.factor = 0.3, .patience = patience}},
                      100);
    schedule.evaluated(2.0);
    double expected = 1;
    for (int round = 0; round < 3; ++round) {
      for (int64_t bad = 0; bad < patience; ++bad) {
        schedule.evaluated(2.0);  // as good is not better
        EXPECT_NEAR(schedule.rate(50), expected, 1e-12);
      }
      schedule.evaluated(2.5);
      expected *= 0.3;
      EXPECT_NEAR(schedule.rate(50), expected, 1e-12);
    }
    Schedule other({.rate = 1.0, .decay = PlateauDecay{.factor = 0.3, .patience = patience}}, 100);
    other.restore(schedule.state());
    schedule.evaluated(1.0);
    other.evaluated(1.0);  // a best: the count begins anew
    for (int64_t bad = 0; bad <= patience; ++bad) {
      EXPECT_NEAR(schedule.rate(50), expected, 1e-12);
      EXPECT_EQ(other.rate(50), schedule.rate(50));
      schedule.evaluated(1.5);
      other.evaluated(1.5);
    }
    EXPECT_NEAR(schedule.rate(50), 0.3 * expected, 1e-12);
    EXPECT_EQ(other.rate(50), schedule.rate(50));
  }
}

TEST(Descent, TheNormInOnePassIsThatNorm) {
  NamedTensors parameters;
  for (const auto& [name, shape] : std::map<std::string, std::vector<int64_t>>{
           {"a", {5, 7}}, {"b", {3}}, {"c", {2, 3, 8}}, {"none", {4}}}) {
    parameters[name] = torch::zeros(shape, at::kDouble).requires_grad_(true);
    if (name != "none") parameters[name].mutable_grad() = at::randn(shape, at::kDouble);
  }
  parameters["a"].mutable_grad() = at::randn({7, 5}, at::kDouble).t();  // as it lies
  const Descent descent(Sgd{}, parameters);
  EXPECT_NEAR(gradient_norm(parameters), descent.norm(), 1e-13 * descent.norm());
  EXPECT_GT(descent.norm(), 1);
}

}  // namespace
}  // namespace deq
