#include "deq/gradients/reversible.h"

#include "deq/gradients/unrolled.h"
#include "tests/base/scratch.h"
#include "tests/gradients/layer.h"

namespace deq {
namespace {

using namespace testing;

/// The same chain with a tape of everything.
Tensor taped_chain(const Map& f, const Tensor& z0, const ReversibleUnrolled& options) {
  Tensor y = z0, z = z0;
  for (int64_t k = 0; k < options.steps; ++k) {
    y = (1 - options.damping) * y + options.damping * f(z);
    z = (1 - options.damping) * z + options.damping * f(y);
  }
  return z;
}

TEST(Reversible, GradientsAreThoseOfTheTapedChain) {
  const TanhLayer layer;
  for (const int64_t steps : {1, 2, 12, 20, 21, 41, 90}) {
    for (const double damping : {0.2, 0.5, 0.9}) {
      const ReversibleUnrolled options{steps, damping};
      const Tensor z0 = randn(layer.z0().sizes(), at::kDouble, 90).requires_grad_(true);
      std::vector<Tensor> leaves = layer.leaves();
      leaves.push_back(z0);
      const Tensor expected = taped_chain(layer.map(), z0, options);
      const Equilibrated found = equilibrium(layer.map(), z0, {.gradient = options});
      EXPECT_TRUE(relative_error(found.z, expected) < 1e-14);
      EXPECT_LT(worst_error(gradients_of(loss_of(found.z), leaves),
                            gradients_of(loss_of(expected), leaves)),
                1e-10)
          << steps << " steps, damping " << damping;
    }
  }
}

TEST(Reversible, InFloatsToo) {
  const Tensor w = 0.15 * randn({24, 24}, at::kFloat, 91);
  const Tensor x = randn({3, 24}, at::kFloat, 92);
  for (const int64_t steps : {8, 30}) {
    const auto gradients = [&](at::ScalarType type, bool taped) {
      const Tensor W = w.to(type).requires_grad_(true), X = x.to(type).requires_grad_(true);
      const Map f = [=](const Tensor& z) { return at::tanh(z.matmul(W) + X); };
      const Tensor z0 = at::zeros({3, 24}, type);
      const ReversibleUnrolled options{.steps = steps};
      const Tensor z =
          taped ? taped_chain(f, z0, options) : equilibrium(f, z0, {.gradient = options}).z;
      return gradients_of(z.square().sum(), {W, X});
    };
    const auto exact = gradients(at::kDouble, true);
    EXPECT_LT(worst_error(gradients(at::kFloat, false), exact), 2e-5) << steps;
  }
}

TEST(Reversible, ConvergesWhereTheEquilibriumIs) {
  const TanhLayer layer;
  const Equilibrated found = equilibrium(
      layer.map(), layer.z0(),
      {.stop = {.rel_tol = 1e-9}, .gradient = ReversibleUnrolled{.steps = 60, .damping = 0.6}});
  EXPECT_TRUE(found.report.converged()) << describe(found.report);
  EXPECT_LT(relative_error(layer.map()(found.z), found.z), 1e-9);
  const Equilibrated early = equilibrium(
      layer.map(), layer.z0(), {.stop = {.rel_tol = 1e-9}, .gradient = ReversibleUnrolled{3}});
  EXPECT_FALSE(early.report.converged());
  const Tensor fz = layer.map()(early.z);
  EXPECT_NEAR(
      early.report.worst_residual(),
      ((fz - early.z).flatten(1).norm(2, 1) / fz.flatten(1).norm(2, 1)).max().item<double>(), 1e-12)
      << "its own residual";
}

TEST(Reversible, EvaluatesTwiceAStepAndOnceMoreEachInBackward) {
  const TanhLayer layer;
  Counted counted(layer.map());
  const Equilibrated e = equilibrium(counted.map, layer.z0(), {.gradient = ReversibleUnrolled{10}});
  EXPECT_EQ(counted.calls, 21) << "and one for the residual";
  EXPECT_EQ(e.report.evaluations, 21);
  gradients_of(loss_of(e.z), layer.leaves());
  EXPECT_EQ(counted.calls, 41);
}

TEST(Reversible, BackwardMayComeAgain) {
  const TanhLayer layer;
  const Equilibrated e = equilibrium(layer.map(), layer.z0(), {.gradient = ReversibleUnrolled{25}});
  const Tensor loss = loss_of(e.z);
  const auto once = torch::autograd::grad({loss}, layer.leaves(), {}, true);
  const auto again = torch::autograd::grad({loss}, layer.leaves());
  for (size_t i = 0; i < once.size(); ++i) EXPECT_TRUE(at::equal(once[i], again[i]));
}

TEST(Reversible, TellsWhatIsWrong) {
  const TanhLayer layer;
  const auto error = [&](const ReversibleUnrolled& mode) {
    return error_of([&] { equilibrium(layer.map(), layer.z0(), {.gradient = mode}); });
  };
  EXPECT_SAYS(error({.damping = 1}), "damping = 1");
  EXPECT_SAYS(error({.damping = 0}), "damping = 0");
  EXPECT_SAYS(error({.steps = 0}), "steps = 0");
  const Equilibrated e = equilibrium(layer.map(), layer.z0(), {.gradient = ReversibleUnrolled{}});
  EXPECT_SAYS(
      error_of([&] { torch::autograd::grad({loss_of(e.z)}, layer.leaves(), {}, true, true); }),
      "create_graph");
}

}  // namespace
}  // namespace deq
