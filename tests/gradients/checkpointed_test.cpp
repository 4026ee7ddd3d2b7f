#include <torch/csrc/autograd/custom_function.h>

#include <thread>

#include "deq/gradients/unrolled.h"
#include "tests/base/scratch.h"
#include "tests/gradients/layer.h"

namespace deq {
namespace {

using namespace testing;

TEST(Checkpointed, IsUnrolledBitByBit) {
  const TanhLayer layer;
  for (const int64_t steps : {1, 2, 3, 7, 12, 16, 30}) {
    for (const double damping : {1.0, 0.7}) {
      for (const bool start_too : {false, true}) {
        const auto run = [&](const Gradient& mode) {
          const Tensor z0 = randn(layer.z0().sizes(), at::kDouble, 90).requires_grad_(start_too);
          std::vector<Tensor> leaves = layer.leaves();
          if (start_too) leaves.push_back(z0);
          const Equilibrated e = equilibrate(layer.map(), z0, {.gradient = mode});
          std::vector<Tensor> all = gradients_of(loss_of(e.z), leaves);
          all.push_back(e.z.detach());
          all.push_back(e.report.residual);
          return all;
        };
        const auto a = run(Unrolled{steps, damping}), b = run(Checkpointed{steps, damping});
        for (size_t i = 0; i < a.size(); ++i) {
          // The same arithmetic; only the order of sums over segments differs for shared weights.
          EXPECT_LT(relative_error(b[i], a[i]), 1e-14) << steps << " " << damping << " " << i;
        }
        EXPECT_TRUE(at::equal(a[a.size() - 2], b[b.size() - 2]));  // z
        EXPECT_TRUE(at::equal(a[4], b[4])) << "nothing is summed along the chain";
      }
    }
  }
}

TEST(Checkpointed, ReachesEveryKindOfCapturedTensor) {
  const Tensor w = randn({3, 6, 6}, at::kDouble, 91).mul_(0.2).requires_grad_(true);
  const Tensor x = randn({2, 4}, at::kDouble, 92).requires_grad_(true);
  const Tensor V = randn({4, 6}, at::kDouble, 93).requires_grad_(true);
  const auto run = [&](const Gradient& mode) {
    const Tensor norm = w[0] / w[0].norm();     // a captured tensor that is not a leaf,
    const Tensor u = x.matmul(V).matmul(norm);  // one made from it,
    const auto parts = at::split(u, 3, 1);      // two outputs of one node,
    const Map f = [=](const Tensor& z) {        // a leaf, and a view of that leaf made in f
      return at::tanh(z.matmul(norm) + z.matmul(w[2]) + at::cat({parts[1], parts[0]}, 1) + u);
    };
    return gradients_of(loss_of(equilibrium(f, at::zeros({2, 6}, at::kDouble), {.gradient = mode})),
                        {w, x, V});
  };
  EXPECT_LT(worst_error(run(Checkpointed{.steps = 10}), run(Unrolled{.steps = 10})), 1e-13);
}

TEST(Checkpointed, EvaluatesEveryStepOnceMoreInBackward) {
  const TanhLayer layer;
  Counted counted(layer.map());
  const Equilibrated e =
      equilibrate(counted.map, layer.z0(), {.gradient = Checkpointed{.steps = 10}});
  EXPECT_EQ(counted.calls, 10);
  EXPECT_EQ(e.report.evaluations, 10);
  gradients_of(loss_of(e.z), layer.leaves());
  EXPECT_EQ(counted.calls, 20);
}

TEST(Checkpointed, TheGraphBehindItIsRunOnce) {
  // A node of the graph behind f: counts how often it is run.
  struct Probe : torch::autograd::Function<Probe> {
    static Tensor forward(torch::autograd::AutogradContext*, const Tensor& t) { return t.clone(); }
    static torch::autograd::variable_list backward(torch::autograd::AutogradContext*,
                                                   torch::autograd::variable_list g) {
      ++runs();
      return g;
    }
    static int& runs() {
      static int count = 0;
      return count;
    }
  };
  const TanhLayer layer;
  const Tensor u = Probe::apply(layer.x.matmul(layer.V));
  const Map f = [u, V = layer.V, W = layer.W](const Tensor& z) {
    return at::tanh(z.matmul(W) + u + V.sum());  // V is behind u as well
  };
  const Tensor z = equilibrium(f, layer.z0(), {.gradient = Checkpointed{.steps = 9}});
  gradients_of(loss_of(z), layer.leaves());
  EXPECT_EQ(Probe::runs(), 1);
}

TEST(Checkpointed, SaysThatBackwardRanBefore) {
  const TanhLayer layer;
  // Nothing behind the segments has a buffer of its own to miss.
  const Map f = [b = layer.b](const Tensor& z) { return 0.5 * z + b; };
  const Tensor z = equilibrium(f, layer.z0(), {.gradient = Checkpointed{.steps = 9}});
  const Tensor sum = z.sum();
  gradients_of(sum, {layer.b});
  EXPECT_SAYS(error_of([&] { gradients_of(sum, {layer.b}); }), "a second time");
}

TEST(Checkpointed, SaysThatFCapturesOtherTensorsInBackward) {
  const TanhLayer layer;
  auto calls = std::make_shared<int>(0);
  const Map f = [calls, b = layer.b, W = layer.W](const Tensor& z) {
    return ++*calls > 10 ? z.matmul(W) + b : z + b;
  };
  const Tensor z = equilibrium(f, layer.z0(), {.gradient = Checkpointed{.steps = 9}});
  EXPECT_SAYS(error_of([&] { gradients_of(z.sum(), layer.leaves()); }), "captures the same");
}

TEST(Unrolled, TheReportIsThatOfTheStateBeforeTheLastStep) {
  const TanhLayer layer;
  for (const double damping : {1.0, 0.3}) {
    Tensor z = layer.z0();
    for (int k = 0; k < 5; ++k) z = damped_step(layer.map(), z, damping);
    const Tensor expected = residual_of(layer.map(), z, Scope::Sample);
    for (const Gradient& mode :
         {Gradient(Unrolled{6, damping}), Gradient(Checkpointed{6, damping})}) {
      const EquilibriumOptions options = {.stop = {.rel_tol = 1e-9}, .gradient = mode};
      const Report r = equilibrate(layer.map(), layer.z0(), options).report;
      EXPECT_TRUE(at::allclose(r.residual, expected, 1e-9)) << damping;
      EXPECT_EQ(r.count(Reason::MaxSteps), 2);
      EXPECT_EQ(r.max_steps, 6);
      EXPECT_TRUE(r.steps.eq(6).all().item<bool>());
    }
  }
}

TEST(Unrolled, ReportsWhatIsNotFiniteAndWhatConverged) {
  const Map f = [](const Tensor& z) {
    return at::stack({0.1 * z[0] + 1, z[1] * z[1] + 10, z[2] + 1});
  };
  for (const Gradient& mode : {Gradient(Unrolled{20}), Gradient(Checkpointed{20})}) {
    const Report r = equilibrate(f, at::ones({3, 2}, at::kDouble), {.gradient = mode}).report;
    EXPECT_EQ(r.reason[0].item<int64_t>(), int64_t(Reason::Converged));
    EXPECT_EQ(r.reason[1].item<int64_t>(), int64_t(Reason::NonFinite));
    EXPECT_EQ(r.reason[2].item<int64_t>(), int64_t(Reason::MaxSteps));
  }
}

}  // namespace
}  // namespace deq
