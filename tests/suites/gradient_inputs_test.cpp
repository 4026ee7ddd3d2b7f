// What every gradient mode makes of an f and a start that are not as usual: the right answer or one
// clear error, never a wrong state or gradient that passes for right.
#include <ATen/autocast_mode.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include <limits>

#include "tests/base/scratch.h"
#include "tests/gradients/layer.h"

namespace deq {
namespace {

using namespace testing;

class GradientInputs : public ::testing::TestWithParam<Gradient> {
 protected:
  EquilibriumOptions options() const { return exact(GetParam()); }
  bool is(const char* name) const { return name_of(GetParam()) == name; }
  /// dz/dw of z = 0.5 z + w.
  double slope() const { return is("one-step") ? 1 : 2; }
  /// Solves f from zeros (2, 3): z = 2 w expected, whatever f does with its memory, and its
  /// gradient; the start is left alone, and z shares no memory with it.
  void expect_halves(const Map& f, const Tensor& w) const {
    const Tensor z0 = at::zeros({2, 3}, at::kDouble);
    Tensor z = equilibrium(f, z0, options());
    EXPECT_LT(largest(z0), 1e-300) << "the start was written to";
    EXPECT_LT(largest(z - 2 * w), 1e-9);
    EXPECT_LT(largest(gradients_of(z.sum(), {w})[0] - slope()), 1e-9);
    at::NoGradGuard no_tape;
    const Tensor plain = equilibrium(f, z0, options()), before = plain.clone();
    EXPECT_LT(largest(plain - 2 * w), 1e-9);
    EXPECT_LT(largest(z0), 1e-300) << "the start was written to";
    f(at::zeros_like(z0));
    EXPECT_TRUE(at::equal(plain, before)) << "the result is f's own memory";
  }
};
INSTANTIATE_TEST_SUITE_P(All, GradientInputs, ::testing::ValuesIn(every_gradient()),
                         [](const auto& info) {
                           std::string name = name_of(info.param);
                           std::erase(name, '-');
                           return name;
                         });

Tensor weight() { return randn({2, 3}, at::kDouble, 120).requires_grad_(true); }

TEST_P(GradientInputs, AnFThatWorksInPlace) {
  const Tensor w = weight();
  expect_halves([w](const Tensor& z) { return z.mul_(0.5).add_(w); }, w);
}

TEST_P(GradientInputs, AnFThatWritesByPointer) {
  at::NoGradGuard no_tape;
  const Map f = [](const Tensor& z) {
    double* p = z.data_ptr<double>();
    for (int64_t i = 0; i < z.numel(); ++i) p[i] = 0.5 * p[i] + 1;
    return z;
  };
  const Tensor z0 = at::zeros({2, 3}, at::kDouble);
  EXPECT_LT(largest(equilibrium(f, z0, options()).z - 2), 1e-9);
  EXPECT_EQ(largest(z0), 0);
}

TEST_P(GradientInputs, AnFThatFillsOneBuffer) {
  const Tensor w = weight();
  {
    at::NoGradGuard no_tape;
    const Tensor buffer = at::zeros({2, 3}, at::kDouble);
    std::vector<double> lent(6);
    for (const Map& f :
         {Map([=](const Tensor& z) { return at::add_out(const_cast<Tensor&>(buffer), w, z, 0.5); }),
          Map([=](const Tensor& z) {
            return buffer.copy_(0.5 * z + w).view({2, 3});
          }),
          Map([&, w](const Tensor& z) {
            const Tensor view = at::from_blob(lent.data(), {2, 3}, at::kDouble);
            return view.copy_(0.5 * z + w);
          })}) {
      EXPECT_LT(largest(equilibrium(f, at::zeros({2, 3}, at::kDouble), options()).z - 2 * w), 1e-9);
    }
  }
  // A buffer's tape leads from one segment, or step, into another.
  if (is("checkpointed") || is("reversible")) return;
  expect_halves([w, buffer = at::zeros({2, 3}, at::kDouble)](
                    const Tensor& z) { return buffer.copy_(0.5 * z + w); },
                w);
}

TEST_P(GradientInputs, AResultSharesNoMemoryWithWhatFCaptured) {
  Tensor w = weight();
  const Tensor u = w * 1, z0 = at::zeros({2, 3}, at::kDouble);
  const Tensor before = w.detach().clone();
  std::vector<Tensor> found;
  for (const Map& f : {Map([=](const Tensor&) { return w; }), Map([=](const Tensor&) { return u; }),
                       Map([=](const Tensor&) {
                         return w.view({2, 3});
                       }),
                       Map([=](const Tensor&) { return w.detach(); })}) {
    found.push_back(equilibrium(f, z0, options()));
    at::NoGradGuard no_tape;
    found.push_back(equilibrium(f, z0, options()));
  }
  at::NoGradGuard no_tape;
  w.add_(1);
  u.zero_();
  for (const Tensor& z : found) EXPECT_LT(largest(z - before), 1e-12);  // not to the bit: damped
}

TEST_P(GradientInputs, AResultSharesNoMemoryWithItsStart) {
  for (const Map& f : {Map([](const Tensor& z) { return z; }),
                       Map([](const Tensor& z) { return z.view(z.sizes()); })}) {
    const Tensor z0 = at::ones({2, 3}, at::kDouble);
    const Tensor z = equilibrium(f, z0, options());
    z0.zero_();
    EXPECT_TRUE(at::equal(z, at::ones_like(z)));
  }
}

TEST_P(GradientInputs, AnFThatBeginsToWorkInPlaceIsAnError) {
  at::NoGradGuard no_tape;
  for (const auto mode : {false, true}) {
    int calls = 0;
    const Map f = [&](const Tensor& z) {
      return ++calls < 2 ? 0.5 * z + 1 : mode ? z.mul_(0.5).add_(1) : z.detach().zero_() + 2;
    };
    const Tensor z0 = at::zeros({2, 3}, at::kDouble);
    EXPECT_SAYS(error_of([&] { equilibrium(f, z0, options()); }), "in place");
    EXPECT_EQ(largest(z0), 0);
  }
}

TEST_P(GradientInputs, EverySolveFindsOutAnewWhetherFWorksInPlace) {
  // These do not solve: an error, as above.
  if (is("unrolled") || is("checkpointed") || is("reversible")) return;
  at::NoGradGuard no_tape;
  bool in_place = false;
  const Map f = [&](const Tensor& z) { return in_place ? z.mul_(0.5).add_(1) : 0.5 * z + 1; };
  const Tensor z0 = at::zeros({2, 3}, at::kDouble);
  for (int k = 0; k < 2; ++k, in_place = true) {
    EXPECT_LT(largest(equilibrium(f, z0, options()).z - 2), 1e-9) << k;
    EXPECT_EQ(largest(z0), 0) << k;
  }
}

TEST_P(GradientInputs, InInferenceModeTheAnswerIsTheSame) {
  const Tensor w = weight();
  const c10::InferenceMode inference;
  const Tensor z0 = at::zeros({2, 3}, at::kDouble), buffer = at::zeros({2, 3}, at::kDouble);
  for (const Map& f : {Map([=](const Tensor& z) { return 0.5 * z + w; }),
                       Map([=](const Tensor& z) { return z.mul_(0.5).add_(w); }),
                       Map([=](const Tensor& z) { return buffer.copy_(0.5 * z + w); })}) {
    EXPECT_LT(largest(equilibrium(f, z0, options()).z - 2 * w), 1e-9);
    EXPECT_EQ(largest(z0), 0);
  }
}

TEST_P(GradientInputs, BadStartsAndFunctionsAreOneLineEach) {
  const Map f = [](const Tensor& z) { return 0.5 * z + 1; };
  const auto says = [&](const Map& map, const Tensor& z0) {
    return error_of([&] { equilibrium(map, z0, options()); });
  };
  const Tensor zeros = at::zeros({2, 3}, at::kDouble);
  EXPECT_SAYS(says(Map(), zeros), "empty Map");
  EXPECT_SAYS(says(Map(Map::Evaluate()), zeros), "empty Map");
  EXPECT_SAYS(says(f, Tensor()), "z0 is undefined; expected a floating-point");
  EXPECT_SAYS(says(f, zeros.to(at::kLong)), "z0 is Long; expected a floating-point");
  EXPECT_SAYS(says([](const Tensor&) { return Tensor(); }, zeros), "undefined tensor");
  EXPECT_SAYS(says([](const Tensor& z) { return z.to(at::kFloat); }, zeros), "Double to Float");
}

TEST_P(GradientInputs, AStartThatIsNotFiniteIsToBlameAndTouchesNoOtherRow) {
  const Tensor w = weight(), z0 = at::zeros({2, 3}, at::kDouble);
  z0[0][1] = std::numeric_limits<double>::quiet_NaN();
  const Equilibrated e = equilibrium([w](const Tensor& z) { return 0.5 * z + w; }, z0, options());
  EXPECT_SAYS(describe(e.report), "z0 is not finite in 1 of 2 rows");
  EXPECT_LT(largest(e.z[1] - 2 * w[1]), 1e-9);
  if (is("unrolled") || is("checkpointed"))
    return;  // differentiated as it is: 0.5 z + w has J = 0.5
  const Tensor g = gradients_of(e.z.sum(), {w})[0];
  EXPECT_TRUE(g[0].isnan().all().item<bool>()) << g;
  EXPECT_LT(largest(g[1] - slope()), 1e-9);
}

// sqrt has the gradient NaN where the other branch is taken.
TEST_P(GradientInputs, ABranchWithoutAGradientHasNone) {
  const Tensor w = at::full({2, 3}, -1, at::kDouble).requires_grad_(true);
  const Map f = [w](const Tensor& z) { return at::where(z > 100, z.sqrt(), 0.6 * z + w); };
  const Equilibrated e = equilibrium(f, at::zeros({2, 3}, at::kDouble), options());
  EXPECT_LT(largest(e.z + 2.5), 1e-9);
  const Tensor g = gradients_of(e.z.sum(), {w})[0];
  if (is("one-step")) {
    EXPECT_EQ(largest(g - 1), 0);  // does not ask for J
  } else {
    EXPECT_TRUE(g.isnan().all().item<bool>()) << g;
  }
  if (is("implicit")) {
    EXPECT_EQ(e.adjoint().count(Reason::NonFinite), 2);
  }
}

TEST_P(GradientInputs, ARowThatIsNotFiniteHasNoGradientAndTheOthersHaveTheirs) {
  const Tensor w = at::zeros({2, 3}, at::kDouble).requires_grad_(true);
  const Map f = [w](const Tensor& z) { return at::stack({0.5 * z[0], (z[1] - 1).log()}) + w; };
  const Equilibrated e = equilibrium(f, at::full({2, 3}, 2, at::kDouble), options());
  EXPECT_EQ(e.report.reason[1].item<int64_t>(), int64_t(Reason::NonFinite));
  const Tensor g = gradients_of(e.z.sum(), {w})[0];
  EXPECT_LT(largest(g[0] - slope()), 1e-9);
  EXPECT_TRUE(g[1].isnan().all().item<bool>()) << g;
}

TEST_P(GradientInputs, AnFThatChangesBetweenItsCallsIsNotConverged) {
  if (is("unrolled") || is("checkpointed")) return;  // no f is asked whether it agrees
  const Tensor w = weight();
  const Map f = [w](const Tensor& z) { return 0.5 * z + (at::GradMode::is_enabled() ? 3 : 1) * w; };
  const Equilibrated e = equilibrium(f, at::zeros({2, 3}, at::kDouble), options());
  EXPECT_FALSE(e.report.converged());
  EXPECT_NEAR(e.report.worst_residual(), 0.5, 1e-6);  // |4 w - 2 w| / |4 w|
}

/// Autocast to bfloat16 on the CPU, as LibTorch's own context does it.
struct Autocast {
  Autocast() {
    at::autocast::set_cpu_enabled(true);
    at::autocast::increment_nesting();
  }
  ~Autocast() {
    if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
    at::autocast::set_cpu_enabled(false);
  }
};

TEST_P(GradientInputs, UnderAutocastWeightsHaveTheirGradients) {
  const Tensor W = (0.2 * randn({6, 6}, at::kFloat, 121)).requires_grad_(true);
  const Tensor b = randn({6}, at::kFloat, 122).requires_grad_(true);
  const Tensor z0 = at::zeros({2, 6});
  EquilibriumOptions coarse = options();
  coarse.stop = {.max_steps = 30, .rel_tol = 1e-2};
  for (const Map& f : {Map([=](const Tensor& z) { return at::tanh(z.matmul(W) + b); }),
                       Map([=](const Tensor& z) {  // comes out as bfloat16
                         return at::tanh(at::linear(z, W, b));
                       })}) {
    const auto plain = gradients_of(loss_of(equilibrium(f, z0, coarse)), {W, b});
    for (int step = 0; step < 2; ++step) {
      Tensor loss;
      {
        const Autocast bfloat16;
        const Equilibrated e = equilibrium(f, z0, coarse);
        EXPECT_EQ(e.z.scalar_type(), at::kFloat);
        EXPECT_TRUE(e.report.converged()) << describe(e.report);
        loss = loss_of(e);
      }
      const auto found = torch::autograd::grad({loss}, {W, b});  // throws where one is undefined
      EXPECT_LT(worst_error(found, plain), 0.1) << step;
    }
  }
  // What is cast is the weight as it is now.
  at::NoGradGuard no_tape;
  const Autocast bfloat16;
  const Map f = [=](const Tensor& z) { return at::tanh(z.matmul(W) + b); };
  const Tensor before = equilibrium(f, z0, coarse);
  const_cast<Tensor&>(W).zero_();
  EXPECT_LT(largest(equilibrium(f, z0, coarse).z - b.tanh()), 1e-2);
}

}  // namespace
}  // namespace deq
