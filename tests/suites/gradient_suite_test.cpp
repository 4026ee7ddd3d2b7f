// What every gradient mode owes.
#include <gtest/gtest.h>

#include <future>
#include <thread>

#include "tests/base/scratch.h"
#include "tests/gradients/layer.h"

namespace deq {
namespace {

using namespace testing;

class GradientSuite : public ::testing::TestWithParam<Gradient> {
 protected:
  EquilibriumOptions options() const { return exact(GetParam()); }
  bool is(const char* name) const { return name_of(GetParam()) == name; }
  /// The gradient is that of the equilibrium, up to a tolerance.
  bool is_exact() const { return !is("one-step"); }
  Tensor solve(const Map& f, const Tensor& z0) const { return equilibrium(f, z0, options()); }
  std::vector<Tensor> gradients(const TanhLayer& layer) const {
    return gradients_of(loss_of(solve(layer.map(), layer.z0())), layer.leaves());
  }
};
INSTANTIATE_TEST_SUITE_P(All, GradientSuite, ::testing::ValuesIn(every_gradient()),
                         [](const auto& info) {
                           std::string name = name_of(info.param);
                           std::erase(name, '-');
                           return name;
                         });

TEST_P(GradientSuite, AgreesWithDenseLinearAlgebra) {
  const TanhLayer layer;
  const double error = worst_error(gradients(layer), dense_gradients(layer));
  EXPECT_LT(error, is_exact() ? 1e-9 : 0.9);
}

TEST_P(GradientSuite, OfAnyStateRank) {
  for (const std::vector<int64_t>& sizes :
       {std::vector<int64_t>{}, {5}, {2, 5}, {2, 3, 5}, {2, 3, 2, 5}, {0, 3}, {2, 0, 5}}) {
    const Tensor x = randn(sizes, at::kDouble, 71).requires_grad_(true);
    const Tensor z = solve([x](const Tensor& z) { return 0.5 * z + x; }, at::zeros_like(x));
    EXPECT_EQ(z.sizes(), at::IntArrayRef(sizes));
    const Tensor dx = gradients_of(z.sum(), {x})[0];
    EXPECT_LT(largest(dx - (is_exact() ? 2 : 1)), 1e-9);
  }
}

TEST_P(GradientSuite, OneMapUsedTwiceBeforeBackward) {
  const TanhLayer layer;
  const std::vector<Tensor> once = gradients(layer);
  const Map f = layer.map();
  const Tensor first = solve(f, layer.z0()), second = solve(f, layer.z0());
  const auto twice = gradients_of(loss_of(first) + 2 * loss_of(second), layer.leaves());
  for (size_t i = 0; i < once.size(); ++i) EXPECT_LT(relative_error(twice[i], 3 * once[i]), 1e-12);
}

TEST_P(GradientSuite, ChainedCallsPassTheirGradientOn) {
  const TanhLayer layer;
  const auto chain = [&](auto&& solve_one) {
    const Tensor first = solve_one(layer.map(), layer.z0());
    const Tensor u = first.matmul(layer.W);  // the second layer's input comes from the first
    const Map f = [W = layer.W, u](const Tensor& z) { return at::tanh(0.5 * z.matmul(W) + u); };
    return gradients_of(loss_of(solve_one(f, layer.z0())), layer.leaves());
  };
  const auto found = chain([&](const Map& f, const Tensor& z0) { return solve(f, z0); });
  const auto expected = chain([&](const Map& f, const Tensor& z0) {
    return equilibrium(f, z0, exact(Unrolled{.steps = 90}));
  });
  EXPECT_LT(worst_error(found, expected), is_exact() ? 1e-9 : 1.0);
}

TEST_P(GradientSuite, AnEquilibriumInsideAnEquilibrium) {
  const TanhLayer layer(0.4);
  const auto nested = [&](const EquilibriumOptions& options) {
    const Map f = [W = layer.W, b = layer.b, u = layer.x.matmul(layer.V),
                   options](const Tensor& z) {
      const Map inner = [W, v = 0.3 * z + u](const Tensor& y) { return at::tanh(y.matmul(W) + v); };
      return equilibrium(inner, at::zeros_like(z), options) + 0.1 * b;
    };
    return gradients_of(loss_of(equilibrium(f, layer.z0(), options)), layer.leaves());
  };
  EquilibriumOptions options = exact(GetParam());
  EquilibriumOptions unrolled = exact(Unrolled{.steps = 40});
  set_where_known(options.gradient, "steps", 40);
  EXPECT_LT(worst_error(nested(options), nested(unrolled)), is_exact() ? 1e-7 : 1.0);
}

struct Module : torch::nn::Module {
  Tensor W;
  explicit Module(const Tensor& from) { W = register_parameter("W", from.detach().clone()); }
};

TEST_P(GradientSuite, DoesNotDependOnTrainOrEvalMode) {
  const TanhLayer layer;
  Module module(layer.W);
  std::vector<Tensor> found;
  for (const bool train : {true, false}) {
    module.train(train);
    const Map f = [&](const Tensor& z) { return at::tanh(z.matmul(module.W) + 1); };
    const Tensor z = solve(f, layer.z0());
    EXPECT_TRUE(z.requires_grad());
    found.push_back(gradients_of(loss_of(z), {module.W})[0]);
  }
  EXPECT_TRUE(at::equal(found[0], found[1]));
  EXPECT_GT(largest(found[0]), 0);
}

TEST_P(GradientSuite, FromSeveralThreadsAtOnce) {
  const TanhLayer layer;
  const auto expected = gradients(layer);
  std::vector<std::vector<Tensor>> found(4);
  std::vector<std::thread> threads;
  for (auto& mine : found) threads.emplace_back([&] { mine = gradients(layer); });
  for (std::thread& thread : threads) thread.join();
  for (const auto& mine : found) {
    for (size_t i = 0; i < mine.size(); ++i) EXPECT_TRUE(at::equal(mine[i], expected[i]));
  }
}

TEST_P(GradientSuite, WhatWasCapturedMayComeFromAnotherThread) {
  const TanhLayer layer;
  const auto expected = gradients(layer);
  Map f;
  std::async(std::launch::async, [&] {
    // Every thread numbers its nodes: these run ahead of those of the thread below.
    Tensor ahead = layer.b;
    for (int i = 0; i < 20000; ++i) ahead = ahead + 0;
    f = layer.map();
  }).get();
  const auto found = std::async(std::launch::async, [&] {
                       return gradients_of(loss_of(solve(f, layer.z0())), layer.leaves());
                     }).get();
  EXPECT_LT(worst_error(found, expected), 1e-12);
}

TEST_P(GradientSuite, BackwardAndGradAgree) {
  const TanhLayer layer;
  const auto expected = gradients(layer);
  loss_of(solve(layer.map(), layer.z0())).backward();
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_TRUE(at::allclose(layer.leaves()[i].grad(), expected[i], 1e-12, 1e-14));
  }
}

TEST_P(GradientSuite, WeightsCapturedTwiceCountOnceEachWay) {
  // W itself, and a tensor made from W: the chain rule passes through both, once.
  const TanhLayer layer;
  const auto with = [&](const EquilibriumOptions& options) {
    const Tensor u = layer.x.matmul(layer.V).matmul(layer.W);
    const Map f = [W = layer.W, u](const Tensor& z) { return at::tanh(z.matmul(W) + u + u); };
    return gradients_of(loss_of(equilibrium(f, layer.z0(), options)), {layer.W, layer.V, layer.x});
  };
  EXPECT_LT(worst_error(with(options()), with(exact(Unrolled{.steps = 90}))),
            is_exact() ? 1e-9 : 1.0);
}

TEST_P(GradientSuite, WithoutATapeTheValueIsTheSame) {
  const TanhLayer layer;
  EquilibriumOptions coarse = options();
  coarse.stop = {.max_steps = 4, .rel_tol = 1e-9};  // far from converged
  set_where_known(coarse.gradient, "steps", 3);
  const Tensor taped = equilibrium(layer.map(), layer.z0(), coarse);
  at::NoGradGuard no_tape;
  const Tensor plain = equilibrium(layer.map(), layer.z0(), coarse);
  EXPECT_TRUE(taped.requires_grad());
  EXPECT_FALSE(plain.requires_grad());
  EXPECT_TRUE(at::equal(taped, plain));
}

TEST_P(GradientSuite, WhatNeedsNoGradientGetsNone) {
  const Tensor w = at::ones({4}, at::kDouble);
  EXPECT_FALSE(solve([w](const Tensor& z) { return 0.5 * z + w; }, at::zeros({2, 4}, at::kDouble))
                   .requires_grad());
}

TEST_P(GradientSuite, AMapThatIgnoresItsStateIsAnOrdinaryFunction) {
  const Tensor w = randn({2, 4}, at::kDouble, 72).requires_grad_(true);
  for (const Map& f :
       {Map([w](const Tensor&) { return w; }), Map([w](const Tensor&) { return 2 * w; })}) {
    const Tensor z = solve(f, at::zeros({2, 4}, at::kDouble));
    EXPECT_LE(largest(z - f(w)), is("reversible") ? 1e-12 : 0) << "it is damped";
    const Tensor expected = gradients_of(loss_of(f(w)), {w})[0];
    EXPECT_TRUE(at::allclose(gradients_of(loss_of(z), {w})[0], expected, 1e-12));
  }
}

TEST_P(GradientSuite, CallsOfFAreCounted) {
  const TanhLayer layer;
  Counted counted(layer.map());
  const Equilibrated e = equilibrium(counted.map, layer.z0(), options());
  EXPECT_EQ(e.report.evaluations, counted.calls);
  EXPECT_TRUE(e.report.converged()) << describe(e.report);
}

TEST_P(GradientSuite, TheStartHasAGradientOnlyInAnExplicitNetwork) {
  const TanhLayer layer;
  const Tensor z0 = layer.z0().requires_grad_(true);
  EquilibriumOptions few = options();
  set_where_known(few.gradient, "steps", 3);
  bool solved = false;  // an explicit network of a fixed depth does not
  const Forward forward{.solve =
                            [&](const Map& f, const Tensor& start) {
                              solved = true;
                              return deq::solve(f, start, few.solver, few.stop);
                            },
                        .stop = few.stop,
                        .on_adjoint = {}};
  const Equilibrated e = few.gradient->apply(layer.map(), z0, forward);
  const Tensor dz0 = gradients_of(loss_of(e.z), {z0})[0];
  EXPECT_EQ(largest(dz0) > 0, !solved);
}

TEST_P(GradientSuite, NothingIsKeptAfterwards) {
  const TanhLayer layer;
  const auto token = std::make_shared<int>(0);
  for (const bool backward : {true, false}) {
    {
      const Map f = [token, inner = layer.map()](const Tensor& z) { return inner(z); };
      const Tensor z = solve(f, layer.z0());
      if (backward) gradients_of(loss_of(z), layer.leaves());
    }
    EXPECT_EQ(token.use_count(), 1);
  }
}

TEST_P(GradientSuite, BackwardASecondTimeNeedsTheGraphRetained) {
  const TanhLayer layer;
  const Tensor loss = loss_of(solve(layer.map(), layer.z0()));
  const auto first = gradients_of(loss, layer.leaves(), /*retain=*/true);
  const auto second = gradients_of(loss, layer.leaves());
  for (size_t i = 0; i < first.size(); ++i) EXPECT_TRUE(at::equal(first[i], second[i]));
  EXPECT_THROW(gradients_of(loss, layer.leaves()), std::exception);
}

TEST_P(GradientSuite, TwiceDifferentiatedItIsRightOrAnError) {
  const TanhLayer layer;
  const auto first_derivative = [&](const EquilibriumOptions& options) {
    const Tensor loss = loss_of(equilibrium(layer.map(), layer.z0(), options));
    return torch::autograd::grad({loss}, {layer.b}, {}, /*retain_graph=*/true,
                                 /*create_graph=*/true)[0];
  };
  if (is("implicit") || is("checkpointed") || is("reversible")) {
    const std::string message = error_of([&] { first_derivative(options()); });
    EXPECT_SAYS(message, "create_graph");
    EXPECT_SAYS(message, "unrolled");
    return;
  }
  const Tensor second = gradients_of(first_derivative(options()).sum(), {layer.b})[0];
  EXPECT_TRUE(second.isfinite().all().item<bool>());
  if (!is("unrolled")) return;
  // Against differences of exact first derivatives.
  TanhLayer plus, minus;
  at::NoGradGuard no_tape;
  plus.b.add_(1e-5), minus.b.sub_(1e-5);
  const Tensor difference = (dense_gradients(plus)[2] - dense_gradients(minus)[2]) / 2e-5;
  EXPECT_LT(relative_error(second, difference), 1e-6);
}

TEST_P(GradientSuite, ErrorsOfFAreNotSwallowed) {
  const Map bad = [](const Tensor& z) { return z.narrow(0, 0, 1); };
  EXPECT_SAYS(error_of([&] { solve(bad, at::zeros({2, 3}, at::kDouble)); }), "[2, 3] to [1, 3]");
  const Map undefined = [](const Tensor&) { return Tensor(); };
  EXPECT_SAYS(error_of([&] { solve(undefined, at::zeros({2, 3}, at::kDouble)); }), "undefined");
}

TEST_P(GradientSuite, OptionsOutOfRangeAreErrorsBeforeBackward) {
  EquilibriumOptions wrong = options();
  set_where_known(wrong.gradient, "steps", 0);
  set_where_known(wrong.gradient, "rel_tol", -1);
  if (is("one-step")) return;
  const TanhLayer layer;
  EXPECT_SAYS(error_of([&] { equilibrium(layer.map(), layer.z0(), wrong); }), "expected");
}

}  // namespace
}  // namespace deq
