#include "deq/gradients/phantom.h"

#include "tests/gradients/layer.h"

namespace deq {
namespace {

using namespace testing;

std::vector<Tensor> gradients(const TanhLayer& layer, const Gradient& mode) {
  return gradients_of(loss_of(equilibrium(layer.map(), layer.z0(), exact(mode))), layer.leaves());
}

/// g damping sum_{k < steps} ((1 - damping) I + damping J)^k at f's output, by plain loops.
Tensor phantom_row(const TanhLayer& layer, const Tensor& z, const Tensor& g, int64_t steps,
                   double damping) {
  const Tensor slope = 1 - z * z;
  Tensor term = g, sum = at::zeros_like(g);
  for (int64_t k = 0; k < steps; ++k) {
    sum = sum + damping * term;
    term = (1 - damping) * term + damping * (term * slope).matmul(layer.W.detach().t());
  }
  return sum;
}

TEST(Phantom, ReportsEveryEvaluation) {
  const TanhLayer layer;
  for (const int64_t steps : {1, 4}) {
    int64_t calls = 0;
    const Map f = [&, f = layer.map()](const Tensor& z) { return ++calls, f(z); };
    EXPECT_EQ(equilibrium(f, layer.z0(), exact(Phantom{.steps = steps})).report.evaluations, calls);
  }
}

TEST(Phantom, IsTheRowVectorFormula) {
  const TanhLayer layer;
  const Tensor z = picard_limit(layer.map(), layer.z0()).detach();
  const Tensor leaf = z.clone().requires_grad_(true);
  const Tensor g = gradients_of(loss_of(leaf), {leaf})[0];
  for (const int64_t steps : {1, 2, 5}) {
    for (const double damping : {1.0, 0.5, 0.2}) {
      const Tensor u = phantom_row(layer, z, g, steps, damping);
      const Tensor expected = (u * (1 - z * z)).sum(at::IntArrayRef{0, 1});  // (df/db)^T u
      const Tensor found = gradients(layer, Phantom{.steps = steps, .damping = damping})[2];
      EXPECT_LT(relative_error(found, expected), 1e-9) << steps << " " << damping;
    }
  }
}

TEST(Phantom, ErrorsFallWithStepsAndDampingShrinksTheGradient) {
  const TanhLayer layer;
  const auto exact_gradients = dense_gradients(layer);
  const auto error = [&](int64_t steps, double damping) {
    const auto found = gradients(layer, Phantom{.steps = steps, .damping = damping});
    return relative_error(found[0], exact_gradients[0]);
  };
  for (const double damping : {1.0, 0.5}) {
    double before = 1;
    for (const int64_t steps : {1, 2, 5, 20}) {
      const double now = error(steps, damping);
      EXPECT_LT(now, 0.9 * before) << steps << " " << damping;
      before = now;
    }
  }
  EXPECT_LT(error(20, 1.0), 1e-6);
  EXPECT_GT(error(1, 0.5), error(1, 1.0));
  EXPECT_GT(error(5, 0.5), 10 * error(5, 1.0));
  // One damped step is the one-step gradient, only shorter.
  const Tensor one = gradients(layer, Phantom{.steps = 1})[0];
  const Tensor half = gradients(layer, Phantom{.steps = 1, .damping = 0.5})[0];
  EXPECT_LT(relative_error(half, 0.5 * one), 1e-9);
}

TEST(OneStep, IsPhantomWithOneStep) {
  const TanhLayer layer;
  const auto one = gradients(layer, OneStep{}), phantom = gradients(layer, Phantom{.steps = 1});
  for (size_t i = 0; i < one.size(); ++i) EXPECT_TRUE(at::equal(one[i], phantom[i]));
  const auto expected = dense_gradients(layer);
  for (size_t i = 0; i < one.size(); ++i) {
    const double cosine =
        ((one[i] * expected[i]).sum() / one[i].norm() / expected[i].norm()).item<double>();
    EXPECT_GT(cosine, 0.7);
  }
}

TEST(Phantom, TheValueIsTheEquilibriumItself) {
  const TanhLayer layer;
  const EquilibriumOptions coarse = {.stop = {.max_steps = 3}, .gradient = Phantom{.steps = 4}};
  const Equilibrated e = equilibrium(layer.map(), layer.z0(), coarse);
  EXPECT_TRUE(at::allclose(e.report.residual, residual_of(layer.map(), e.z, Scope::Sample), 1e-9));
}

TEST(Phantom, TheValueSurvivesAChainThatOverflows) {
  const Tensor w = at::full({1}, 1e130, at::kDouble).requires_grad_(true);
  const Tensor z0 = at::full({2, 3}, 1e-200, at::kDouble);
  const Equilibrated e =
      equilibrium([w](const Tensor& z) { return w * z; }, z0,
                  {.stop = {.max_steps = 3, .rel_tol = 0, .abs_tol = 1e-3}, .gradient = Phantom{}});
  ASSERT_TRUE(e.report.converged());
  EXPECT_TRUE(e.z.requires_grad());
  EXPECT_TRUE(at::equal(e.z, z0));
}

}  // namespace
}  // namespace deq
