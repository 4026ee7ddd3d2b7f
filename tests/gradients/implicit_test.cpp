#include "deq/gradients/implicit.h"

#include <torch/csrc/autograd/custom_function.h>

#include "tests/base/scratch.h"
#include "tests/gradients/layer.h"

namespace deq {
namespace {

using namespace testing;

const Implicit kTight = {.solver = Anderson{}, .stop = {.max_steps = 300, .rel_tol = 1e-13}};

std::vector<Tensor> gradients(const TanhLayer& layer, const Implicit& mode) {
  return gradients_of(loss_of(equilibrium(layer.map(), layer.z0(), exact(mode))), layer.leaves());
}

TEST(Implicit, AgreesWithDenseUnrolledAndFiniteDifferences) {
  const TanhLayer layer;
  const auto found = gradients(layer, kTight);
  EXPECT_LT(worst_error(found, dense_gradients(layer)), 1e-11);
  const auto unrolled = gradients_of(
      loss_of(equilibrium(layer.map(), layer.z0(), {.gradient = Unrolled{.steps = 120}})),
      layer.leaves());
  EXPECT_LT(worst_error(found, unrolled), 1e-11);

  at::NoGradGuard no_tape;
  const auto loss_now = [&] {
    return loss_of(equilibrium(layer.map(), layer.z0(), exact(kTight))).item<double>();
  };
  for (size_t i = 0; i < found.size(); ++i) {
    const Tensor flat = layer.leaves()[i].view(-1);
    for (int64_t k = 0; k < flat.numel(); k += 3) {
      const double h = 1e-5, value = flat[k].item<double>();
      flat[k] = value + h;
      const double above = loss_now();
      flat[k] = value - h;
      const double below = loss_now();
      flat[k] = value;
      const double difference = (above - below) / (2 * h), g = found[i].view(-1)[k].item<double>();
      EXPECT_NEAR(g, difference, 1e-6 * std::max(1.0, std::abs(difference))) << i << " " << k;
    }
  }
}

TEST(Implicit, EverySolverAndScopeFindsTheAdjoint) {
  const TanhLayer layer;
  const auto expected = dense_gradients(layer);
  for (const Solver& solver :
       {Solver(Anderson{}), Solver(Broyden{}), Solver(Picard{}),
        Solver(Broyden{.line_search = true}), Solver(Anderson{.scope = Scope::Causal}),
        Solver(Anderson{.scope = Scope::Position}), Solver(Broyden{.scope = Scope::Position})}) {
    EXPECT_LT(worst_error(gradients(layer, {solver, kTight.stop}), expected), 1e-10);
  }
}

/// Passes no gradient on.
struct Stop : torch::autograd::Function<Stop> {
  static Tensor forward(torch::autograd::AutogradContext*, const Tensor& z) { return z.clone(); }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext*,
                                                 torch::autograd::variable_list) {
    return {Tensor()};
  }
};

TEST(Implicit, WithoutAGradientThereIsNothingToSolve) {
  const TanhLayer layer;
  const Equilibrated found = equilibrium(layer.map(), layer.z0(), exact(kTight));
  Stop::apply(found.z).sum().backward();
  EXPECT_EQ(found.adjoint().evaluations, 0);
  for (const Tensor& leaf : layer.leaves())
    EXPECT_TRUE(!leaf.grad().defined() || leaf.grad().eq(0).all().item<bool>());
}

// Six features: so many independent steps tell all of J.
TEST(Implicit, StepsOfTheForwardSolveTellTheAdjointOfALinearMap) {
  const Tensor A = 0.3 * randn({6, 6}, at::kDouble, 91), b = randn({6}, at::kDouble, 92);
  const Tensor shift = b.clone().requires_grad_(true);
  const Map f = [&](const Tensor& z) { return z.matmul(A.t()) + shift; };
  Report adjoint;
  const auto gradient = [&](int64_t shine, int64_t steps) {
    EquilibriumOptions options = exact(Implicit{
        .solver = Anderson{}, .stop = {.max_steps = steps, .rel_tol = 1e-9}, .shine = shine});
    options.solver = Anderson{.memory = 4};
    const Equilibrated found = equilibrium(f, at::zeros({2, 1, 6}, at::kDouble), options);
    const Tensor result = gradients_of(loss_of(found.z), {shift})[0];
    adjoint = found.adjoint();
    return result;
  };
  const Tensor expected = gradient(0, 200);
  const Tensor estimate = gradient(40, 1);
  EXPECT_EQ(adjoint.evaluations, 1);
  EXPECT_LT(relative_error(estimate, expected),
            1e-3);                            // steps that nearly depend on others cost digits
  EXPECT_LT(adjoint.worst_residual(), 1e-3);  // and it says so
  EXPECT_GT(relative_error(gradient(0, 1), expected), 0.1);
}

TEST(Implicit, AStartFromTheForwardSolveChangesNoGradientAndSavesProducts) {
  const TanhLayer layer(0.9);
  std::vector<int64_t> products;
  std::vector<std::vector<Tensor>> found;
  for (const int64_t shine : {0, 20}) {
    Implicit mode = kTight;
    mode.shine = shine;
    const Equilibrated z = equilibrium(layer.map(), layer.z0(), exact(mode));
    found.push_back(gradients_of(loss_of(z), layer.leaves()));
    products.push_back(z.adjoint().evaluations);
  }
  EXPECT_LT(worst_error(found[1], found[0]), 1e-10);
  EXPECT_LT(products[1], products[0]);
}

TEST(Implicit, AStartFromTheForwardSolveIsASamplesOwn) {
  const Tensor slope = at::linspace(0.1, 0.9, 12, at::kDouble).view({12, 1});
  const Tensor x = randn({12, 7}, at::kDouble, 93), mix = 0.3 * randn({7, 7}, at::kDouble, 94);
  const auto gradient = [&](int64_t first, int64_t count, int64_t shine) {
    const Tensor own = x.narrow(0, first, count).clone().requires_grad_(true);
    const Tensor slopes = slope.narrow(0, first, count);
    const Map f = [=](const Tensor& z) {  // row by row, so that a row's bits are its own
      return at::tanh(slopes * (z.unsqueeze(2) * mix).sum(1) + own);
    };
    Implicit mode{.solver = Anderson{}, .stop = {.max_steps = 3, .rel_tol = 1e-9}, .shine = shine};
    EquilibriumOptions options = exact(mode);
    options.stop = {.max_steps = 60, .rel_tol = 1e-6};
    const Equilibrated found = equilibrium(f, at::zeros({count, 7}, at::kDouble), options);
    return gradients_of(found.z.sin().sum(), {own})[0];
  };
  for (const int64_t shine : {1, 4, 8}) {
    const Tensor all = gradient(0, 12, shine);
    EXPECT_FALSE(at::equal(all, gradient(0, 12, 0))) << shine;
    for (int64_t row = 0; row < 12; ++row)
      EXPECT_TRUE(at::equal(gradient(row, 1, shine), all.narrow(0, row, 1)))
          << shine << " steps, row " << row;
  }
}

TEST(Implicit, TheAdjointOfACausalMapRunsBackward) {
  // The loss looks at one position only; the adjoint of those after it is exactly zero, whatever
  // the tolerance, and that of those before it is found in scopes that stop by position.
  const Tensor x = randn({2, 8, 5}, at::kDouble, 80).requires_grad_(true);
  const auto gradient = [&](const Gradient& mode) {
    const Tensor z = equilibrium(causal_map(x), at::zeros({2, 8, 5}, at::kDouble), exact(mode));
    return gradients_of(z.select(1, 4).square().sum(), {x})[0];
  };
  const Tensor expected = gradient(Unrolled{.steps = 300});
  for (const Scope scope : {Scope::Sample, Scope::Position, Scope::Causal}) {
    const Tensor found = gradient(Implicit{Anderson{.scope = scope}, kTight.stop});
    EXPECT_LT(relative_error(found, expected), 1e-9) << Names<Scope>::values[size_t(scope)];
    const Tensor coarse = gradient(Implicit{Anderson{.scope = scope}, {.rel_tol = 1e-1}});
    EXPECT_EQ(largest(coarse.narrow(1, 5, 3)), 0);
    EXPECT_GT(largest(coarse.narrow(1, 0, 4)), 0);
  }
}

TEST(Implicit, RepellingMapsHaveGradientsToo) {
  const Tensor b = at::ones({1, 1}, at::kDouble).requires_grad_(true);
  const Tensor z =
      equilibrium([b](const Tensor& z) { return -2 * z + b; }, at::zeros({1, 1}, at::kDouble),
                  {.solver = Broyden{},
                   .stop = {.rel_tol = 1e-12},
                   .gradient = Implicit{Broyden{}, {.rel_tol = 1e-12}}});
  EXPECT_NEAR(z.item<double>(), 1. / 3, 1e-12);
  EXPECT_NEAR(gradients_of(z.sum(), {b})[0].item<double>(), 1. / 3, 1e-12);
}

TEST(Implicit, ReportsItsAdjoint) {
  const TanhLayer layer;
  const auto run = [&](const Implicit& mode) {
    const Equilibrated e = equilibrium(layer.map(), layer.z0(), exact(mode));
    EXPECT_FALSE(e.adjoint().reason.defined()) << "only after backward";
    EXPECT_EQ(describe(e.adjoint()), "no solve is reported");
    gradients_of(loss_of(e.z), layer.leaves());
    return e.adjoint();
  };
  EXPECT_TRUE(run(kTight).converged());
  const Report cut = run({Anderson{}, {.max_steps = 2, .rel_tol = 1e-9}});
  EXPECT_FALSE(cut.converged());
  EXPECT_EQ(cut.evaluations, 2);
}

TEST(Implicit, BackwardASecondTimeIsOneLine) {
  const Tensor w = at::ones({2, 3}, at::kDouble).requires_grad_(true);
  const Map f = [w](const Tensor& z) { return 0.5 * z + w; };
  const Tensor sum = equilibrium(f, at::zeros({2, 3}, at::kDouble)).z.sum();
  gradients_of(sum, {w}, /*retain=*/true);
  gradients_of(sum, {w});
  EXPECT_SAYS(error_of([&] { gradients_of(sum, {w}); }), "a second time; expected retain_graph");
}

TEST(Implicit, WhereNothingNeedsAGradientThereIsNoAdjoint) {
  const Tensor w = at::ones({2, 3}, at::kDouble), other = w.clone().requires_grad_(true);
  const Map f = [w](const Tensor& z) { return 0.5 * z.sin() + w; };
  const Equilibrated e = equilibrium(f, at::zeros({2, 3}, at::kDouble));
  EXPECT_FALSE(e.z.requires_grad());
  gradients_of((e.z * other).sum(), {other});
  EXPECT_FALSE(e.adjoint().reason.defined());
}

TEST(Implicit, AReportOfRowsThatMoveEachOtherIsOfTheStateReturned) {
  const Tensor w = at::ones({1}, at::kDouble).requires_grad_(true);
  const Map chain = [w](const Tensor& z) { return at::stack({0.5 * z[1], 0.5 * z[1] + w}); };
  for (const Gradient& mode : {Gradient(Implicit{}), Gradient(OneStep{})}) {
    const Equilibrated e = equilibrium(chain, at::zeros({2, 1}, at::kDouble), {.gradient = mode});
    at::NoGradGuard no_tape;
    const Tensor residual = residual_of(chain, e.z, Scope::Sample);
    EXPECT_TRUE(at::allclose(e.report.residual, residual, 1, 2e-3)) << residual;
    EXPECT_TRUE(!e.report.converged() || residual.max().item<double>() < 2e-3);
  }
}

TEST(Implicit, ByPositionOnlyWhatHasNoAdjointHasNoGradient) {
  // Position 2 of sample 0 alone meets the square root of a negative number.
  const Tensor w = at::ones({2, 4, 3}, at::kDouble).requires_grad_(true);
  const Tensor shift = at::ones({2, 4, 1}, at::kDouble);
  shift[0][2] = -4;
  const Map f = [&](const Tensor& z) {
    return at::where(z + shift > 1e6, (z + shift).sqrt(), 0.5 * z + w);
  };
  const auto gradient = [&](Scope scope) {
    const Equilibrated e =
        equilibrium(f, at::zeros({2, 4, 3}, at::kDouble),
                    {.gradient = Implicit{Anderson{.scope = scope}, kTight.stop}});
    return gradients_of(e.z.sum(), {w})[0].isnan();
  };
  const Tensor by_position = gradient(Scope::Position), by_sample = gradient(Scope::Sample);
  EXPECT_TRUE(by_position[0].narrow(0, 0, 3).all().item<bool>()) << "what depends on position 2";
  EXPECT_FALSE(by_position[0][3].any().item<bool>());
  EXPECT_TRUE(by_sample[0].all().item<bool>());
  EXPECT_FALSE(by_position[1].any().item<bool>() || by_sample[1].any().item<bool>());
}

TEST(Implicit, TheResultStandsForItsState) {
  const TanhLayer layer;
  const Tensor z = equilibrium(layer.map(), layer.z0());
  const Tensor& bound = equilibrium(layer.map(), layer.z0());
  EXPECT_TRUE(at::equal(at::tanh(equilibrium(layer.map(), layer.z0())), z.tanh()));
  EXPECT_TRUE(at::equal(bound, z));
}

TEST(Implicit, MoreStepsOfTheAdjointComeNearer) {
  const TanhLayer layer;
  const auto expected = dense_gradients(layer);
  double before = 1e9;
  for (const int64_t steps : {1, 3, 6, 12, 24}) {
    const double error =
        worst_error(gradients(layer, {Picard{}, {.max_steps = steps, .rel_tol = 0}}), expected);
    EXPECT_LT(error, before);
    before = error;
  }
  EXPECT_LT(before, 1e-3);
}

TEST(Implicit, TakesUpstreamGradientsOfAnyStride) {
  const TanhLayer layer;
  const Tensor z = equilibrium(layer.map(), layer.z0(), exact(kTight));
  const Tensor g = randn({6, 3, 2}, at::kDouble, 81);
  const auto pull = [&](const Tensor& upstream) {
    return torch::autograd::grad({z}, {layer.W}, {upstream}, /*retain_graph=*/true)[0];
  };
  const Tensor strided = g.permute({2, 1, 0});
  EXPECT_TRUE(at::equal(pull(strided), pull(strided.contiguous())));
  const Tensor expanded = at::ones({1}, at::kDouble).expand({2, 3, 6});
  EXPECT_TRUE(at::equal(pull(expanded), pull(expanded.contiguous())));
}

TEST(Implicit, NoGradientUpstreamIsNoAdjoint) {
  const TanhLayer layer;
  const Tensor z = equilibrium(layer.map(), layer.z0(), exact(kTight));
  for (const Tensor& g : gradients_of((0 * z).sum(), layer.leaves())) EXPECT_EQ(largest(g), 0);
}

TEST(Implicit, TheResultMayBeChangedInPlaceOrSaysThatItMayNot) {
  const TanhLayer layer;
  const auto expected =
      gradients_of(2 * equilibrium(layer.map(), layer.z0(), exact(kTight)).z.sum(), layer.leaves());
  try {
    Tensor z = equilibrium(layer.map(), layer.z0(), exact(kTight));
    z.mul_(2);
    const auto found = gradients_of(z.sum(), layer.leaves());
    EXPECT_LT(worst_error(found, expected), 1e-12);
  } catch (const std::exception& error) {
    EXPECT_NE(std::string(error.what()).find("inplace"), std::string::npos) << error.what();
  }
}

TEST(Implicit, AStartThatIsTheSolutionIsNotTiedToTheResult) {
  const TanhLayer layer;
  Tensor z0 = equilibrium(layer.map(), layer.z0(), exact(kTight)).z.detach().clone();
  const Tensor z = equilibrium(layer.map(), z0, {.stop = {.rel_tol = 1e-6}});
  z0.zero_();
  EXPECT_GT(largest(z), 0.1);
  EXPECT_LT(worst_error(gradients_of(loss_of(z), layer.leaves()), dense_gradients(layer)), 1e-2);
}

TEST(Implicit, ReachesCapturedTensorsOfEveryKind) {
  // A leaf captured by reference, a view of a leaf, one weight by two names, and a leaf not used.
  const Tensor w = randn({3, 6, 6}, at::kDouble, 82).mul_(0.1).requires_grad_(true);
  const Tensor v = w[1], unused = at::ones({3}, at::kDouble).requires_grad_(true);
  const Tensor x = randn({2, 6}, at::kDouble, 83);
  const Map f = [&](const Tensor& z) {
    return at::tanh(z.matmul(v) + z.matmul(w[1]) + x + w[2][0]);
  };
  const auto run = [&](const Gradient& mode) {
    return gradients_of(loss_of(equilibrium(f, at::zeros({2, 6}, at::kDouble), exact(mode))),
                        {w, unused});
  };
  const auto found = run(kTight), expected = run(Unrolled{.steps = 120});
  EXPECT_LT(relative_error(found[0], expected[0]), 1e-11);
  EXPECT_EQ(largest(found[0][0]), 0);
  EXPECT_EQ(largest(found[1]), 0);
}

}  // namespace
}  // namespace deq
