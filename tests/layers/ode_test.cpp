// Solutions, their reports, and each sample alone.
#include "deq/layers/ode.h"

#include <c10/core/GradMode.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "tests/layers/layer_suite.h"
#include "tests/layers/ode_problems.h"

namespace deq::testing {
namespace {

using at::Tensor;

Reason reason_of(const Trajectory& y, int64_t sample = 0) {
  return Reason(y.report.reason[sample].item<uint8_t>());
}

std::string message_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Ode, MeetsItsToleranceWithEveryMethod) {
  const Tensor y0 = at::tensor({1.5, -0.5, 3.0, 0.1}, at::kDouble).view({2, 2});
  for (const OdeMethod& method : ode_methods()) {
    for (const double rel_tol : {1e-4, 1e-7, 1e-10}) {
      if (std::holds_alternative<RungeKutta4>(method) && rel_tol < 1e-6) continue;
      const Trajectory y = integrate(&relaxation, y0, {0, 0.3, 1.1, 1.1, 2.5},
                                     {.method = method, .rel_tol = rel_tol, .abs_tol = rel_tol});
      EXPECT_TRUE(y.report.converged()) << name_of(method) << describe(y.report);
      int64_t i = 0;
      for (const double t : {0.0, 0.3, 1.1, 1.1, 2.5}) {
        const double error = (y.y[i++] - relaxation_at(t, y0)).abs().max().item<double>();
        EXPECT_LE(error, 20 * rel_tol) << name_of(method) << " at " << t;
      }
    }
  }
}

/// A bump of the width 0.02 at t = 5.
Tensor bump(const Tensor& t, const Tensor& y) {
  return at::exp(-0.5 * ((t - 5) / 0.02).square()).unsqueeze(1).expand_as(y);
}

TEST(Ode, SeesWhatIsAsWideAsALongestStep) {
  const double area = 0.02 * std::sqrt(2 * M_PI);
  for (const OdeMethod& method : ode_methods()) {
    OdeOptions options{.method = method};
    options.max_step = 0.04;
    if (std::holds_alternative<RungeKutta4>(method)) {
      EXPECT_NE(message_of([&] {
                  integrate(&bump, at::zeros({1, 1}), {0, 10}, options);
                }).find("max_step = 0.04"),
                std::string::npos);
      continue;
    }
    for (const OdeGradient& gradient : {OdeGradient(Checkpointed{}), OdeGradient(Interpolated{})}) {
      options.gradient = gradient;
      Tensor height = at::ones({}, at::kDouble).requires_grad_(true);
      const auto high = [height](const Tensor& t, const Tensor& y) { return height * bump(t, y); };
      const Trajectory y = integrate(high, at::zeros({1, 1}, at::kDouble), {0, 10}, options);
      EXPECT_NEAR(y.y[1].item<double>(), area, 1e-5 * area) << name_of(method);
      EXPECT_GE(y.report.steps.item<int64_t>(), 250) << name_of(method);
      EXPECT_NEAR(torch::autograd::grad({y.y[1].sum()}, {height})[0].item<double>(), area,
                  1e-4 * area)
          << name_of(method);
    }
  }
  EXPECT_NE(message_of([&] {
              integrate(&bump, at::zeros({1, 1}), {0, 10}, {.max_step = 0});
            }).find("max_step = 0"),
            std::string::npos);
}

TEST(Ode, GoesBackwardsAndNowhere) {
  const auto decay = [](const Tensor&, const Tensor& y) { return -y; };
  Tensor y0 = at::ones({3, 1}, at::kDouble).requires_grad_(true);
  const Tensor times = at::tensor({1.0, 1.0, 0.0, 0.0, 2.0, 1.0}, at::kDouble).view({2, 3});
  const Trajectory y = integrate(decay, y0, times, {.rel_tol = 1e-10, .abs_tol = 1e-12});
  EXPECT_NEAR(y.y[1][0].item<double>(), std::exp(1.0), 1e-8);
  EXPECT_NEAR(y.y[1][1].item<double>(), std::exp(-1.0), 1e-8);  // from 1 to 2
  EXPECT_NEAR(y.y[1][2].item<double>(), std::exp(-1.0), 1e-8);
  const Trajectory still = integrate(decay, y0, {1, 1}, {});
  EXPECT_TRUE(at::equal(still.y[1], y0.detach()));
  EXPECT_TRUE(
      at::equal(torch::autograd::grad({still.y[1].sum()}, {y0})[0], at::ones({3, 1}, at::kDouble)));
}

TEST(Ode, WithoutAStepGivesTheGradient0) {
  for (const OdeGradient& gradient :
       {OdeGradient(Checkpointed{}), OdeGradient(Unrolled{}), OdeGradient(Reversible{}),
        OdeGradient(Interpolated{}), OdeGradient(Backsolve{})}) {
    const Tensor y0 = at::ones({2, 1}, at::kDouble).requires_grad_(true);
    const Tensor rate = at::scalar_tensor(0.7, at::kDouble).requires_grad_(true);
    const auto decay = [rate](const Tensor&, const Tensor& y) { return -rate * y; };
    integrate(decay, y0, {1, 1, 1}, {.gradient = gradient}).y.sum().backward();
    EXPECT_TRUE(at::equal(y0.grad(), at::full({2, 1}, 3, at::kDouble)));
    ASSERT_TRUE(rate.grad().defined()) << gradient.index();
    EXPECT_EQ(rate.grad().item<double>(), 0);
    const Tensor bad = at::full({2, 1}, NAN, at::kDouble);  // and without a solution
    rate.mutable_grad() = Tensor();
    integrate(decay, bad, {0, 1}, {.gradient = gradient}).y.sum().backward();
    ASSERT_TRUE(rate.grad().defined()) << gradient.index();
    EXPECT_EQ(rate.grad().item<double>(), 0);
  }
}

TEST(Ode, SamplesHaveStepsOfTheirOwn) {
  Tensor mu = at::ones({8}, at::kDouble);
  mu[3] = 50;
  const Tensor y0 = at::tensor({2.0, 0.0}, at::kDouble).expand({8, 2});
  int64_t rows = 0;
  const OdeFunction f = [&rows, own = van_der_pol(mu)](const Tensor& t, const Tensor& y,
                                                       const Tensor& index) {
    rows += y.size(0);
    return own(t, y, index);
  };
  const Trajectory y = integrate(f, y0, {0, 10}, {.rel_tol = 1e-5, .abs_tol = 1e-5});
  EXPECT_TRUE(y.report.converged());
  const int64_t slow = y.report.steps[3].item<int64_t>(), fast = y.report.steps[0].item<int64_t>();
  EXPECT_GT(slow, 5 * fast);
  // Those that are done are not evaluated any more.
  EXPECT_LT(rows, 7 * (slow + 7 * fast) + 7 * 8 * 20);
}

LayerCase pendulum_case(const std::string& name, const OdeOptions& options) {
  LayerCase layer;
  layer.name = name;
  layer.batched = {
      {"y0", at::tensor({1.0, 0.0, -0.5, 0.4, 2.0, -1.0, 0.1, 0.2}, at::kDouble).view({4, 2})},
      {"length", at::tensor({1.0, 0.25, 2.0, 0.6}, at::kDouble)}};
  layer.shared = {{"damping", at::tensor(0.3, at::kDouble)},
                  {"times", at::tensor({0.1, 0.8, 2.0}, at::kDouble)}};
  layer.run = [options](const Tensors& batched, const Tensors& shared) {
    const Trajectory found = integrate(pendulum(batched.at("length"), shared.at("damping")),
                                       batched.at("y0"), shared.at("times"), options);
    return LayerResult{{{"y", found.y.transpose(0, 1)}}, found.report};
  };
  return layer;
}

OdeOptions tight(OdeMethod method, OdeGradient gradient) {
  return {.method = std::move(method),
          .rel_tol = 1e-10,
          .abs_tol = 1e-12,
          .gradient = std::move(gradient)};
}

TEST(Ode, ASampleIsAlone) {
  const OdeOptions loose{.rel_tol = 1e-5, .abs_tol = 1e-7};
  for (const OdeMethod& method : ode_methods()) {
    OdeOptions options = loose;
    options.method = method;
    check_samples_alone(pendulum_case("ode, " + name_of(method), options));
  }
  for (const OdeGradient& gradient : {OdeGradient(Unrolled{}), OdeGradient(Reversible{}),
                                      OdeGradient(Interpolated{}), OdeGradient(Backsolve{})}) {
    OdeOptions options = loose;
    options.gradient = gradient;
    check_samples_alone(pendulum_case("ode, gradient", options));
  }
}

TEST(Ode, GradientsMatchDifferences) {
  for (const OdeMethod& method : {OdeMethod(Tsit5{}), OdeMethod(Dopri8{}), OdeMethod(Rodas5P{})})
    check_gradients(pendulum_case("ode, " + name_of(method), tight(method, Checkpointed{})), 1e-4,
                    1e-5);
  for (const OdeGradient& gradient : {OdeGradient(Unrolled{}), OdeGradient(Reversible{}),
                                      OdeGradient(Interpolated{}), OdeGradient(Backsolve{})})
    check_gradients(pendulum_case("ode, gradient", tight(Dopri8{}, gradient)), 1e-4, 1e-5);
}

TEST(Ode, CheckpointedIsUnrolledToRounding) {
  for (const OdeMethod& method : ode_methods()) {
    std::vector<Tensor> found;
    for (const OdeGradient& gradient : {OdeGradient(Checkpointed{}), OdeGradient(Unrolled{})}) {
      Tensor mu = at::tensor({1.0, 8.0, 0.5}, at::kDouble).requires_grad_(true);
      Tensor y0 = at::tensor({2.0, 0.0, 1.0, 1.0, -1.0, 0.5}, at::kDouble).view({3, 2});
      y0.requires_grad_(true);
      OdeOptions options{.method = method, .rel_tol = 1e-6, .abs_tol = 1e-8};
      options.gradient = gradient;
      const Trajectory y = integrate(van_der_pol(mu), y0, {0, 1, 2.2, 5}, options);
      const auto gradients = torch::autograd::grad(
          {(y.y * at::arange(24, at::kDouble).view({4, 3, 2})).sum()}, {mu, y0});
      found.insert(found.end(), gradients.begin(), gradients.end());
    }
    const double tolerance = std::holds_alternative<Kvaerno5>(method) ? 1e-5 : 1e-9;
    for (size_t i : {0, 1}) {
      const double size = found[i].abs().max().item<double>();
      EXPECT_LE((found[i] - found[i + 2]).abs().max().item<double>(), tolerance * size)
          << name_of(method);
    }
  }
}

TEST(Ode, KeepsTheSquareRootOfItsStates) {
  // More steps than are kept: the gradient comes from states that are stepped to again.
  Tensor y0 = at::tensor({2.0, 0.0}, at::kDouble).unsqueeze(0).requires_grad_(true);
  Tensor mu = at::full({1}, 30.0, at::kDouble).requires_grad_(true);
  OdeOptions options{.rel_tol = 1e-7, .abs_tol = 1e-9};
  const Trajectory y = integrate(van_der_pol(mu), y0, {0, 10}, options);
  ASSERT_GT(y.report.steps[0].item<int64_t>(), 200);
  const auto kept = torch::autograd::grad({y.y[1].sum()}, {mu, y0});
  options.gradient = Unrolled{};
  const Trajectory unrolled = integrate(van_der_pol(mu), y0, {0, 10}, options);
  const auto wanted = torch::autograd::grad({unrolled.y[1].sum()}, {mu, y0});
  for (size_t i : {0, 1})
    EXPECT_LE(((kept[i] - wanted[i]).abs() / wanted[i].abs()).max().item<double>(), 1e-8);
}

TEST(Ode, UnrolledIsDifferentiatedTwice) {
  Tensor y0 = at::full({1, 1}, 0.7, at::kDouble).requires_grad_(true);
  const Trajectory y = integrate([](const Tensor&, const Tensor& y) { return -y * y; }, y0,
                                 {0, 1.5}, tight(Tsit5{}, Unrolled{}));
  const Tensor first = torch::autograd::grad({y.y[1].sum()}, {y0}, {}, true, true)[0];
  const Tensor second = torch::autograd::grad({first.sum()}, {y0})[0];
  const double d = 1 + 1.5 * 0.7;  // y(t) = y0 / (1 + t y0)
  EXPECT_NEAR(first.item<double>(), 1 / (d * d), 1e-8);
  EXPECT_NEAR(second.item<double>(), -2 * 1.5 / (d * d * d), 1e-8);
  const Trajectory once =
      integrate([](const Tensor&, const Tensor& y) { return -y * y; }, y0, {0, 1.5}, {});
  EXPECT_NE(message_of([&] {
              torch::autograd::grad({once.y[1].sum()}, {y0}, {}, true, true);
            }).find("unrolled"),
            std::string::npos);
}

TEST(Ode, SaysWhyThereIsNoSolution) {
  Tensor y0 = at::tensor({1.0, 0.1, std::nan(""), -1.0}, at::kDouble).view({4, 1});
  y0.requires_grad_(true);
  const Trajectory y = integrate([](const Tensor&, const Tensor& y) { return y * y; }, y0,
                                 {0, 0.5, 2}, {.rel_tol = 1e-8, .abs_tol = 1e-10});
  EXPECT_TRUE(reason_of(y) == Reason::StepUnderflow || reason_of(y) == Reason::NonFinite);
  EXPECT_NEAR(y.reached[0].item<double>(), 1, 1e-6);
  EXPECT_EQ(reason_of(y, 1), Reason::Converged);
  EXPECT_EQ(reason_of(y, 2), Reason::NonFinite);
  EXPECT_EQ(y.report.bad_starts, 1);
  EXPECT_EQ(reason_of(y, 3), Reason::Converged);
  EXPECT_TRUE(y.y.isfinite().all().item<bool>());
  EXPECT_NEAR(y.y[2][1].item<double>(), 0.1 / 0.8, 1e-7);
  const Tensor gradient = torch::autograd::grad({y.y.sum()}, {y0})[0];
  EXPECT_EQ(gradient[0].item<double>(), 0);
  EXPECT_EQ(gradient[2].item<double>(), 0);
  EXPECT_NEAR(gradient[1].item<double>(), 1 + 1 / (0.95 * 0.95) + 1 / (0.8 * 0.8), 1e-6);

  const Trajectory slow =
      integrate(van_der_pol(at::full({1}, 1e4, at::kDouble)),
                at::tensor({2.0, 0.0}, at::kDouble).unsqueeze(0), {0, 100}, {.max_steps = 200});
  EXPECT_EQ(reason_of(slow), Reason::MaxSteps);
  EXPECT_LT(slow.reached[0].item<double>(), 100);
}

TEST(Ode, StiffMethodsTakeFewSteps) {
  const Tensor y0 = at::tensor({2.0, 0.0}, at::kDouble).unsqueeze(0);
  for (const OdeMethod& method : {OdeMethod(Rodas5P{}), OdeMethod(Kvaerno5{})}) {
    const Trajectory y =
        integrate(van_der_pol(at::full({1}, 1e4, at::kDouble)), y0, {0, 100}, {.method = method});
    EXPECT_TRUE(y.report.converged()) << name_of(method);
    EXPECT_LT(y.report.steps[0].item<int64_t>(), 60) << name_of(method);
    EXPECT_EQ(y.factorisations, (y.report.steps + y.rejected).sum().item<int64_t>());
  }
}

TEST(Ode, TakesAGivenJacobian) {
  OdeFunction f = [](const Tensor&, const Tensor& y) { return -y * y; };
  int calls = 0;
  f.set_jacobian([&calls](const Tensor&, const Tensor& y, const Tensor&) {
    ++calls;
    return OdeFunction::Jacobian{at::diag_embed(-2 * y)};
  });
  Tensor y0 = at::tensor({0.7, 1.0}, at::kDouble).unsqueeze(0).requires_grad_(true);
  const Trajectory y = integrate(f, y0, {0, 1.5}, tight(Rodas5P{}, Checkpointed{}));
  EXPECT_GT(calls, 0);
  EXPECT_NEAR(y.y[1][0][0].item<double>(), 0.7 / 2.05, 1e-9);
  const Tensor gradient = torch::autograd::grad({y.y[1].sum()}, {y0})[0];
  EXPECT_NEAR(gradient[0][0].item<double>(), 1 / (2.05 * 2.05), 1e-8);
}

TEST(Ode, TakesFloats) {
  const Tensor y0 = at::full({2, 2}, 1.5, at::kFloat);
  const Trajectory y = integrate(&relaxation, y0, {0, 2}, {.rel_tol = 1e-5, .abs_tol = 1e-6});
  EXPECT_EQ(y.y.scalar_type(), at::kFloat);
  EXPECT_LE((y.y[1] - relaxation_at(2, y0)).abs().max().item<double>(), 2e-5);
}

TEST(Ode, TakesNothing) {
  const auto decay = [](const Tensor&, const Tensor& y) { return -y; };
  for (const OdeMethod& method : ode_methods()) {
    const Tensor none = at::ones({0, 2}, at::kDouble).requires_grad_(true);
    EXPECT_EQ(integrate(decay, none, {0, 1}, {.method = method}).y.sizes(),
              at::IntArrayRef({2, 0, 2}));
    const Tensor flat = at::ones({3}, at::kDouble);
    const Trajectory once = integrate(decay, flat, {0.5}, {.method = method});
    EXPECT_TRUE(at::equal(once.y[0], flat));
    EXPECT_TRUE(once.report.converged());
    EXPECT_EQ(integrate(decay, flat, {0, 1}, {.method = method}).y.sizes(),
              at::IntArrayRef({2, 3}));
  }
}

TEST(Ode, RefusesBadInputByName) {
  const auto decay = [](const Tensor&, const Tensor& y) { return -y; };
  const Tensor y0 = at::ones({2, 1}, at::kDouble);
  const auto refused = [&](const std::function<void()>& call, const std::string& part) {
    EXPECT_NE(message_of(call).find(part), std::string::npos) << message_of(call);
  };
  refused([&] { integrate(decay, y0, {0, 2, 1}); }, "times[2] = 1 after 2");
  refused([&] { integrate(decay, y0, {0, std::nan("")}); }, "times[1] = nan");
  refused([&] { integrate(decay, y0.to(at::kFloat), {0, 1}, {.rel_tol = 1e-9}); }, "rel_tol");
  refused([&] { integrate(decay, at::ones({2}, at::kLong), {0, 1}); }, "y0 has type");
  refused([&] { integrate(OdeFunction(), y0, {0, 1}); }, "f is empty");
  refused(
      [&] {
        integrate([](const Tensor&, const Tensor& y) { return y.sum(); }, y0, {0, 1});
      },
      "f(t, y) has shape");
  refused(
      [&] {
        const c10::AutoGradMode no_tape(false);
        integrate([](const Tensor&, Tensor y) { return y.neg_(); }, y0, {0, 1});
      },
      "f wrote to its y");
  refused(
      [&] {
        integrate(decay, y0, {0, 1}, {.method = Rodas5P{}, .gradient = Reversible{}});
      },
      "reversible");
  refused(
      [&] {
        integrate(decay, y0, {0, 1}, {.method = Rodas5P{}, .gradient = Backsolve{}});
      },
      "backsolve");
  refused([&] { integrate(decay, y0, at::zeros({2, 3}, at::kDouble)); }, "times have shape");
}

}  // namespace
}  // namespace deq::testing
