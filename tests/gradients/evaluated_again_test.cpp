// Checkpointed and reversible gradients evaluate f again in backward: it must be the same f.
#include <c10/core/InferenceMode.h>

#include "deq/gradients/reversible.h"
#include "deq/gradients/unrolled.h"
#include "tests/base/scratch.h"
#include "tests/gradients/layer.h"

namespace deq {
namespace {

using namespace testing;

/// What must hold in backward as it did in forward, of every gradient that evaluates f again there.
struct Again {
  Gradient gradient;

  Tensor taped(const Map& f, const Tensor& z0) const {
    if (const auto* levels = gradient.get_if<Checkpointed>())
      return equilibrium(f, z0, {.gradient = Unrolled{levels->steps}});
    Tensor y = z0, z = z0;
    for (int64_t k = 0; k < gradient.get_if<ReversibleUnrolled>()->steps; ++k) {
      y = 0.5 * y + 0.5 * f(z);
      z = 0.5 * z + 0.5 * f(y);
    }
    return z;
  }
};
std::vector<Again> all_again(int64_t steps) {
  return {{Checkpointed{.steps = steps}}, {ReversibleUnrolled{.steps = steps, .damping = 0.5}}};
}

struct Cosine {
  Tensor a = at::full({5}, 0.3, at::kDouble).requires_grad_(true);
  Tensor x = randn({2, 5}, at::kDouble, 7);
  Tensor z0 = at::zeros({2, 5}, at::kDouble);
  Map f = [a = a, x = x](const Tensor& z) { return at::cos(a * z) + x; };
};

TEST(EvaluatedAgain, DrawsAreThoseOfForward) {
  for (const Again& again : all_again(21)) {
    const Tensor a = at::full({8}, 0.7, at::kDouble).requires_grad_(true);
    const Map f = [a](const Tensor& z) {
      return at::tanh(at::dropout(z * a + 0.3, 0.3, true) + 1);
    };
    const Tensor z0 = at::zeros({4, 8}, at::kDouble);
    const auto gradient = [&](bool taped) {
      at::manual_seed(5);
      const Tensor z =
          taped ? again.taped(f, z0) : equilibrium(f, z0, {.gradient = again.gradient}).z;
      at::manual_seed(6);
      const Tensor found = gradients_of(loss_of(z), {a})[0], next = at::rand({3});
      at::manual_seed(6);
      EXPECT_TRUE(at::equal(next, at::rand({3}))) << "backward draws nothing of its own";
      return found;
    };
    EXPECT_LT(relative_error(gradient(false), gradient(true)), 1e-10) << again.gradient.name();
  }
}

TEST(EvaluatedAgain, AWeightThatWasWrittenIsAnError) {
  for (const Again& again : all_again(30)) {
    for (const bool counted : {true, false}) {
      const Cosine cosine;
      const Tensor loss = loss_of(equilibrium(cosine.f, cosine.z0, {.gradient = again.gradient}).z);
      {
        const at::NoGradGuard no_tape;
        (counted ? cosine.a : cosine.a.variable_data()).add_(0.1);
      }
      EXPECT_SAYS(error_of([&] { gradients_of(loss, {cosine.a}); }),
                  counted ? "written in place between forward and backward (1 times)"
                          : "f is another one in backward");
    }
  }
}

TEST(EvaluatedAgain, WhatIsNoWeightIsWatchedToo) {
  for (const Again& again : all_again(30)) {
    const Cosine cosine;
    const Tensor loss = loss_of(equilibrium(cosine.f, cosine.z0, {.gradient = again.gradient}).z);
    cosine.x.mul_(1.5);
    EXPECT_SAYS(error_of([&] { gradients_of(loss, {cosine.a}); }), "f is another one in backward");
  }
}

TEST(EvaluatedAgain, TheStateIsTheUsers) {
  for (const Again& again : all_again(30)) {
    const Cosine cosine;
    const Tensor expected =
        gradients_of(loss_of(again.taped(cosine.f, cosine.z0) + 1), {cosine.a})[0];
    Tensor z = equilibrium(cosine.f, cosine.z0, {.gradient = again.gradient});
    z.add_(1);
    EXPECT_LT(relative_error(gradients_of(loss_of(z), {cosine.a})[0], expected), 1e-10)
        << again.gradient.name();
  }
}

TEST(EvaluatedAgain, BeginsFromAStateOfInferenceMode) {
  Cosine cosine;
  {
    const c10::InferenceMode inference;
    cosine.z0 = at::zeros({2, 5}, at::kDouble);
  }
  for (const Again& again : all_again(9)) {
    const Tensor z = equilibrium(cosine.f, cosine.z0, {.gradient = again.gradient});
    EXPECT_TRUE(gradients_of(loss_of(z), {cosine.a})[0].defined());
  }
}

}  // namespace
}  // namespace deq
