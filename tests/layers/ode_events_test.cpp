// Events: their times, states and gradients, and the points where there is none.
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "deq/layers/ode.h"
#include "tests/layers/layer_suite.h"
#include "tests/layers/ode_problems.h"

namespace deq::testing {
namespace {

using at::Tensor;

Tensor first_number(const Tensor&, const Tensor& y) { return y.select(1, 0); }

Reason reason_of(const Trajectory& y, int64_t sample = 0) {
  return Reason(y.report.reason[sample].item<uint8_t>());
}

OdeOptions with_event(OdeEvent event) {
  OdeOptions options{.rel_tol = 1e-10, .abs_tol = 1e-12};
  options.event = std::move(event);
  return options;
}

/// Falling bodies, which meet a floor that rises: height h(t) = floor + speed t.
LayerCase falling(const OdeOptions& options) {
  LayerCase layer;
  layer.name = "event";
  layer.batched = {{"y0", at::tensor({10.0, 0.0, 5.0, 1.0, 2.5, -2.0}, at::kDouble).view({3, 2})},
                   {"floor", at::tensor({0.0, 0.5, -0.3}, at::kDouble)}};
  layer.shared = {{"gravity", at::tensor(9.81, at::kDouble)},
                  {"speed", at::tensor(0.4, at::kDouble)},
                  {"times", at::tensor({0.0, 0.3, 5.0}, at::kDouble)}};
  layer.run = [options](const Tensors& batched, const Tensors& shared) {
    OdeOptions own = options;
    own.event = OdeEvent([floor = batched.at("floor"), speed = shared.at("speed")](
                             const Tensor& t, const Tensor& y, const Tensor& rows) {
      return y.select(1, 0) - floor.index_select(0, rows) - speed * t;
    });
    const auto f = [g = shared.at("gravity")](const Tensor&, const Tensor& y) {
      return at::stack({y.select(1, 1), -g + 0 * y.select(1, 0)}, 1);
    };
    const Trajectory found = integrate(f, batched.at("y0"), shared.at("times"), own);
    return LayerResult{{{"y", found.y.transpose(0, 1)}, {"time", found.event_time}}, found.report};
  };
  return layer;
}

TEST(OdeEvents, GradientsReachEverything) {
  for (const OdeMethod& method : {OdeMethod(Tsit5{}), OdeMethod(Rodas5P{}), OdeMethod(Dopri8{})})
    check_gradients(falling({.method = method, .rel_tol = 1e-10, .abs_tol = 1e-12}), 1e-5, 1e-6);
  check_samples_alone(falling({.rel_tol = 1e-6, .abs_tol = 1e-8}));
}

TEST(OdeEvents, TakesTheFirstOfSeveralInAStep) {
  const Trajectory y = integrate(
      [](const Tensor& t, const Tensor& y) { return 10 * at::cos(10 * t).unsqueeze(1) + 0 * y; },
      at::zeros({1, 1}, at::kDouble), {0, 10},
      with_event([](const Tensor&, const Tensor& y) { return y.select(1, 0) - 0.9; }));
  EXPECT_NEAR(y.event_time[0].item<double>(), std::asin(0.9) / 10, 1e-9);
  // A pair between two probes: parabolas find it.
  const Trajectory pair = integrate([](const Tensor&, const Tensor& y) { return at::ones_like(y); },
                                    at::zeros({1, 1}, at::kDouble), {0, 1},
                                    with_event([](const Tensor&, const Tensor& y) {
                                      return (y.select(1, 0) - 0.52) * (y.select(1, 0) - 0.53);
                                    }));
  EXPECT_NEAR(pair.event_time[0].item<double>(), 0.52, 1e-9);
}

TEST(OdeEvents, SaysWhatAnEventAtTheBordersIs) {
  const auto rises = [](const Tensor&, const Tensor& y) { return at::ones_like(y); };
  Tensor y0 = at::tensor({0.0, -1.0, -3.0}, at::kDouble).view({3, 1}).requires_grad_(true);
  const Trajectory y = integrate(rises, y0, {0, 1}, with_event(&first_number));
  EXPECT_EQ(reason_of(y, 0), Reason::EventMissed);  // at the start is none
  EXPECT_EQ(reason_of(y, 1), Reason::Converged);    // at the end is one
  EXPECT_NEAR(y.event_time[1].item<double>(), 1, 1e-14);
  EXPECT_EQ(reason_of(y, 2), Reason::EventMissed);
  EXPECT_EQ(y.event_time[2].item<double>(), 1);
  EXPECT_NEAR(y.y[1][2].item<double>(), -2, 1e-12);
  const Tensor times = torch::autograd::grad({y.event_time.sum()}, {y0}, {}, true)[0];
  EXPECT_NEAR(times[1].item<double>(), -1, 1e-12);
  EXPECT_EQ(times[0].item<double>(), 0);
  // y is right to the end, with its gradient, where there is no event.
  EXPECT_NEAR(torch::autograd::grad({y.y[1].sum()}, {y0})[0][2].item<double>(), 1, 1e-12);
}

TEST(OdeEvents, ATouchHasNoGradient) {
  Tensor y0 = at::ones({1, 1}, at::kDouble).requires_grad_(true);
  const Trajectory y =
      integrate([](const Tensor& t, const Tensor& y) { return 2 * (t - 1).unsqueeze(1) + 0 * y; },
                y0, {0, 2}, with_event(&first_number));
  ASSERT_EQ(reason_of(y), Reason::NotUnique);
  EXPECT_NEAR(y.event_time[0].item<double>(), 1, 1e-6);
  const auto found = torch::autograd::grad({y.event_time.sum() + y.y[1].sum()}, {y0}, {}, {}, false,
                                           /*allow_unused=*/true)[0];
  EXPECT_TRUE(!found.defined() || found.isfinite().all().item<bool>());
}

/// y' = 1 from 0 to where (y - c) * scale is zero.
Trajectory rises_to(const Tensor& c, double scale, const OdeMethod& method = Tsit5{}) {
  OdeOptions options{.method = method};
  options.event = [c, scale](const Tensor&, const Tensor& y) {
    return (y.select(1, 0) - c) * scale;
  };
  return integrate([](const Tensor&, const Tensor& y) { return at::ones_like(y); },
                   at::zeros({1, 1}, c.options()), {0, 2}, options);
}

TEST(OdeEvents, AreThoseOfGWhateverItsSize) {
  const auto expect = [](at::ScalarType type, double scale, double time, double slope) {
    const Tensor c = at::scalar_tensor(1.234, type).requires_grad_(true);
    const Trajectory y = rises_to(c, scale);
    EXPECT_EQ(reason_of(y), Reason::Converged) << scale;
    EXPECT_NEAR(y.event_time[0].item<double>(), 1.234, time) << scale;
    y.event_time.sum().backward();
    EXPECT_NEAR(c.grad().item<double>(), 1, slope) << scale;
  };
  for (const double scale : {1.0, 1e-160, 1e-170, 1e-200, 1e-300, 1e300})
    expect(at::kDouble, scale, 1e-14, 1e-12);
  for (const float scale : {1e-30F, 1e-37F, 1e30F}) expect(at::kFloat, scale, 3e-7, 1e-5);
}

// The slope's inverse is beyond all numbers: the time is right, and said to have no gradient.
TEST(OdeEvents, OfTheSmallestNumbersHaveATimeButNoGradient) {
  const auto check = [](at::ScalarType type, double scale, double tolerance) {
    const Tensor c = at::scalar_tensor(1.234, type).requires_grad_(true);
    const Trajectory y = rises_to(c, scale);
    EXPECT_EQ(reason_of(y), Reason::NotUnique);
    EXPECT_NEAR(y.event_time[0].item<double>(), 1.234, tolerance);
    y.event_time.sum().backward();
    EXPECT_EQ(c.grad().item<double>(), 0);
  };
  check(at::kDouble, 1e-310, 1e-12);
  check(at::kFloat, 1e-39, 1e-5);
}

TEST(OdeEvents, OfATinyStateAreFound) {
  const Tensor y0 = at::full({1, 1}, 1e-200, at::kDouble);
  OdeOptions options{.rel_tol = 1e-10, .abs_tol = 0};
  options.event = [y0](const Tensor&, const Tensor& y) { return (y - y0 / 2).select(1, 0); };
  const Trajectory y =
      integrate([](const Tensor&, const Tensor& y) { return -y; }, y0, {0, 1}, options);
  EXPECT_NEAR(y.event_time[0].item<double>(), std::log(2.0), 1e-9);
  // A pair between two probes, and a zero at the end to rounding.
  const auto rises = [](const Tensor&, const Tensor& y) { return at::ones_like(y); };
  const auto pair = [](const Tensor&, const Tensor& y) {
    return 1e-200 * (y.select(1, 0) - 0.52) * (y.select(1, 0) - 0.53);
  };
  const Trajectory first =
      integrate(rises, at::zeros({1, 1}, at::kDouble), {0, 1}, with_event(pair));
  EXPECT_NEAR(first.event_time[0].item<double>(), 0.52, 1e-9);
  const auto short_of_it = [](const Tensor&, const Tensor& y) {
    return 1e-200 * (y.select(1, 0) - (1 + 1e-15));
  };
  EXPECT_EQ(
      reason_of(integrate(rises, at::zeros({1, 1}, at::kDouble), {0, 1}, with_event(short_of_it))),
      Reason::Converged);
}

TEST(OdeEvents, ShortlyAfterTheStartAreFound) {
  for (const OdeMethod& method : {OdeMethod(RungeKutta4{}), OdeMethod(Tsit5{})}) {
    for (const double scale : {1.0, 1e-6, 1e-8, 1e-20, 1e-200, 1e20}) {
      for (const double at : {1e-2, 1e-3, 1e-4, 1e-9}) {
        const Trajectory y = rises_to(at::scalar_tensor(at, at::kDouble), scale, method);
        EXPECT_EQ(reason_of(y), Reason::Converged) << scale << " " << at;
        EXPECT_NEAR(y.event_time[0].item<double>(), at, 1e-14) << scale;
      }
      if (scale < 1e-30) continue;
      const Trajectory y = rises_to(at::scalar_tensor(1e-4, at::kFloat), scale, method);
      EXPECT_EQ(reason_of(y), Reason::Converged) << scale;
      EXPECT_NEAR(y.event_time[0].item<double>(), 1e-4, 1e-10) << scale;
    }
  }
}

/// A ball from a height, and the times from each bounce to the next. `clock`: they are counted from
/// the last bounce; otherwise time goes on.
std::vector<double> bounces(const OdeMethod& method, at::ScalarType type, double height,
                            double floor, double scale, bool clock) {
  const auto falls = [](const Tensor&, const Tensor& y) {
    return at::stack({y.select(1, 1), at::full_like(y.select(1, 0), -10)}, 1);
  };
  OdeOptions options{.method = method, .event = {}};
  options.event = [floor, scale](const Tensor&, const Tensor& y) {
    return (y.select(1, 0) - floor) * scale;
  };
  Tensor y0 = at::tensor({height + floor, 0.0}, at::kDouble).to(type).unsqueeze(0);
  double now = 0;
  std::vector<double> found;
  for (int i = 0; i < 6; ++i) {
    const Trajectory y = integrate(falls, y0, {now, now + 40 * std::sqrt(height)}, options);
    EXPECT_EQ(reason_of(y), Reason::Converged) << name_of(method) << i;
    found.push_back(y.event_time[0].item<double>() - now);
    now = clock ? 0 : y.event_time[0].item<double>();
    y0 = y.y[1].clone();
    y0.select(1, 1).mul_(-0.8);
  }
  return found;
}

TEST(OdeEvents, ABallBouncesOn) {
  for (const OdeMethod& method : ode_methods()) {
    for (const at::ScalarType type : {at::kDouble, at::kFloat}) {
      for (const double height : {1e-3, 1.0, 1e3}) {
        for (const bool clock : {true, false}) {
          const double scale = clock ? 1 : 1e-20, floor = clock ? 0 : height;
          const auto times = bounces(method, type, height, floor, scale, clock);
          const double fall = std::sqrt(height / 5), tolerance = type == at::kFloat ? 1e-4 : 1e-6;
          for (size_t i = 0; i < times.size(); ++i) {
            const double expected = i == 0 ? fall : 2 * fall * std::pow(0.8, double(i));
            EXPECT_NEAR(times[i], expected, tolerance * fall)
                << name_of(method) << " " << height << " bounce " << i;
          }
        }
      }
    }
  }
}

TEST(OdeEvents, ThatAllMissHaveATimeWithTheGradient0) {
  const Tensor y0 = at::ones({2, 1}, at::kDouble).requires_grad_(true);
  const Tensor rate = at::scalar_tensor(1.0, at::kDouble).requires_grad_(true);
  const Tensor level = at::scalar_tensor(9.0, at::kDouble).requires_grad_(true);
  const Tensor times = at::tensor({0.0, 1.0}, at::kDouble).requires_grad_(true);
  const auto grows = [rate](const Tensor&, const Tensor& y) { return rate * y; };
  const auto g = [level](const Tensor&, const Tensor& y) { return y.select(1, 0) - level; };
  for (const OdeGradient& gradient : {OdeGradient(Checkpointed{}), OdeGradient(Unrolled{})}) {
    OdeOptions options{.gradient = gradient};
    options.event = g;
    const Trajectory y = integrate(grows, y0, times, options);
    EXPECT_EQ(y.report.count(Reason::EventMissed), 2);
    y.event_time.sum().backward();
    for (const Tensor& leaf : {y0, rate, level, times}) {
      ASSERT_TRUE(leaf.grad().defined());
      EXPECT_TRUE(leaf.grad().eq(0).all().item<bool>());
      leaf.mutable_grad() = Tensor();
    }
  }
  // g alone needs a gradient; and nothing does.
  OdeOptions options;
  options.event = g;
  const Tensor fixed = at::ones({2, 1}, at::kDouble);
  const auto plain = [](const Tensor&, const Tensor& y) { return y; };
  integrate(plain, fixed, {0, 1}, options).event_time.sum().backward();
  EXPECT_EQ(level.grad().item<double>(), 0);
  options.event = &first_number;
  EXPECT_FALSE(integrate(plain, fixed, {0, 1}, options).event_time.requires_grad());
}

TEST(OdeEvents, GoesOneWayWhereAsked) {
  const auto swing = [](const Tensor&, const Tensor& y) {
    return at::stack({y.select(1, 1), -y.select(1, 0)}, 1);
  };
  const Tensor y0 = at::tensor({1.0, 0.0}, at::kDouble).unsqueeze(0);
  const double quarter = std::acos(0.0);
  for (const auto& [way, time] :
       {std::pair{Crossing::Any, quarter}, std::pair{Crossing::Falling, quarter},
        std::pair{Crossing::Rising, 3 * quarter}}) {
    const Trajectory y = integrate(swing, y0, {0, 20}, with_event(OdeEvent(&first_number, way)));
    EXPECT_NEAR(y.event_time[0].item<double>(), time, 1e-8);
    EXPECT_NEAR(y.reached[0].item<double>(), time, 1e-8);
    EXPECT_TRUE(at::allclose(y.y[1][0][0], at::zeros({}, at::kDouble), 0, 1e-8));
  }
}

}  // namespace
}  // namespace deq::testing
