#include "deq/layers/contact.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <limits>

#include "deq/base/error.h"
#include "tests/layers/contact_cases.h"

namespace deq::testing {
namespace {

using at::Tensor;

Tensor numbers(std::vector<double> values, std::vector<int64_t> sizes) {
  return at::tensor(values, at::kDouble).view(sizes);
}

/// A body (angle, x, y) of mass 2 on the ground, touched where `normals` and `tangents` say.
Contact body(std::vector<double> velocity, std::vector<double> impulse, std::vector<double> normals,
             std::vector<double> tangents, double friction, double restitution = 0) {
  const auto m = int64_t(normals.size()) / 3;
  return {.mass = at::diag(numbers({1, 2, 2}, {3})),
          .velocity = numbers(velocity, {3}),
          .impulse = numbers(impulse, {3}),
          .normal = numbers(normals, {m, 3}),
          .tangent = numbers(tangents, {m, 3}),
          .restitution = at::full({m}, restitution, at::kDouble),
          .friction = at::full({m}, friction, at::kDouble)};
}
/// A block that is touched in its middle.
Contact block(std::vector<double> velocity, std::vector<double> impulse, double friction,
              double restitution = 0) {
  return body(velocity, impulse, {0, 0, 1}, {0, 1, 0}, friction, restitution);
}
/// And one on two corners.
Contact corners(std::vector<double> velocity, std::vector<double> impulse, double friction) {
  return body(velocity, impulse, {-1, 0, 1, 1, 0, 1}, {0.5, 1, 0, 0.5, 1, 0}, friction);
}

Reason reason_of(const Impact& r, int64_t b = 0) {
  return Reason(r.report.reason[b].item<uint8_t>());
}
Touch touch_of(const Impact& r, int64_t i = 0) {
  return Touch(r.touch.view({-1})[i].item<uint8_t>());
}

TEST(Contact, MeetsItsConditions) {
  for (const auto& [bodies, contacts, joints] :
       {std::tuple{1, 1, false}, std::tuple{2, 3, false}, std::tuple{3, 5, false},
        std::tuple{3, 4, true}, std::tuple{6, 12, false}}) {
    Contact c = random_worlds(200, bodies, contacts, joints, 1);
    if (joints) c.restitution.zero_();  // with joints that are not met before, v = 0 still is
    const Impact found = resolve(c);
    EXPECT_TRUE(found.report.converged()) << describe(found.report);
    EXPECT_LE(found.report.worst_residual(), 1e-12);
    EXPECT_LE(violations(c, found).max().item<double>(), 1e-10) << bodies;
    EXPECT_EQ(found.certificate.abs().sum().item<double>(), 0);
  }
}

TEST(Contact, TouchSaysHowItEnded) {
  EXPECT_EQ(touch_of(resolve(block({0, 1, 3}, {0, 0, 0}, 0.5))), Touch::Open);
  EXPECT_EQ(touch_of(resolve(block({0, 1, -3}, {0, 0, 0}, 0.5))), Touch::Sticks);
  EXPECT_EQ(touch_of(resolve(block({0, 2, -3}, {0, 0, 0}, 0.5))), Touch::Down);
  EXPECT_EQ(touch_of(resolve(block({0, -2, -3}, {0, 0, 0}, 0.5))), Touch::Up);
}

TEST(Contact, SamplesAreAlone) {
  check_samples_alone(contact_case("worlds", random_worlds(7, 3, 5, false, 2)));
  check_samples_alone(contact_case("joints", random_worlds(5, 3, 4, true, 3)));
  check_samples_alone(
      contact_case("shared", random_worlds(5, 2, 3, false, 4), "mass normal tangent"));
}

TEST(Contact, Gradients) {
  Contact c = random_worlds(4, 3, 5, false, 5);
  c.bias = 0.1 * at::ones_like(c.friction);
  check_gradients(contact_case("worlds", c));
  check_gradients(contact_case("shared", c,
                               "mass velocity impulse normal tangent restitution "
                               "friction bias"));
  Contact with_joint = random_worlds(4, 3, 4, true, 6);
  with_joint.joint_bias = at::full({4, 2}, 0.3, at::kDouble);
  with_joint.velocity =
      resolve({.mass = with_joint.mass, .velocity = with_joint.velocity, .joint = with_joint.joint})
          .velocity;
  check_gradients(contact_case("joints", with_joint, "joint_bias"));
}

TEST(Contact, MassNeedNotBeSymmetric) {
  Contact c = random_worlds(3, 2, 3, false, 7);
  c.mass = c.mass +
           0.1 * at::randn({3, 6, 6}, at::make_generator<at::CPUGeneratorImpl>(8ul), at::kDouble);
  EXPECT_LE(violations(c, resolve(c)).max().item<double>(), 1e-12);
  check_gradients(contact_case("skew", c));
}

TEST(Contact, BatchesAreOptionalAndSharedGradientsAreSums) {
  const Contact one = block({0, 4, -3}, {0, 0, 0}, 0.5, 0.5);
  const Impact alone = resolve(one);
  EXPECT_EQ(alone.velocity.dim(), 1);
  EXPECT_EQ(alone.touch.dim(), 1);
  Contact three = one;
  three.velocity = at::stack({one.velocity, one.velocity, one.velocity});
  three.friction = one.friction.clone().requires_grad_();
  const Impact all = resolve(three);
  EXPECT_TRUE(at::equal(all.velocity.detach()[2], alone.velocity));
  const Tensor sum = torch::autograd::grad({all.velocity.select(1, 1).sum()}, {three.friction})[0];
  EXPECT_DOUBLE_EQ(sum.item<double>(), 3 * -(1 + 0.5) * 3);  // v_x = 4 - mu (1 + e) 3
}

TEST(Contact, InfeasibleHasACertificate) {
  // Between two walls that both come nearer: v >= 0.2 and v <= -0.8.
  Contact walls = body({0, 1, 0}, {0, 0, 0}, {0, 1, 0, 0, -1, 0}, {0, 0, 1, 0, 0, 1}, 0.3);
  walls.restitution = numbers({0.2, 0.8}, {2});
  walls.velocity.requires_grad_();
  const Impact found = resolve(walls);
  EXPECT_EQ(reason_of(found), Reason::Infeasible);
  const Tensor z = found.certificate[0];
  EXPECT_GE(z.min().item<double>(), 0);
  EXPECT_LE(walls.normal.t().mv(z).abs().max().item<double>(), 1e-12);
  const Tensor right = walls.restitution * walls.normal.mv(walls.velocity.detach());
  EXPECT_LT(right.dot(z).item<double>(), -1e-3);
  EXPECT_EQ(found.velocity.detach().abs().sum().item<double>(), 0);
  EXPECT_EQ(
      torch::autograd::grad({found.velocity.sum()}, {walls.velocity})[0].abs().sum().item<double>(),
      0);
  // A joint against a contact.
  Contact held = block({0, 0, -1}, {0, 0, 0}, 0.3, 0.5);
  held.joint = numbers({0, 0, 1}, {1, 3});
  const Impact jammed = resolve(held);
  EXPECT_EQ(reason_of(jammed), Reason::Infeasible);
  const double y = jammed.certificate[0][0].item<double>(),
               own = jammed.certificate[0][1].item<double>();
  EXPECT_NEAR(y, own, 1e-12);
  EXPECT_LT(-0.5 * own, 0);
}

TEST(Contact, SaysWhatIsWrongWithItsNumbers) {
  Contact c = random_worlds(3, 2, 3, false, 9);
  c.mass[1][2][2] = 0;
  EXPECT_EQ(reason_of(resolve(c), 1), Reason::NotConvex);
  c.velocity[2][0] = std::numeric_limits<double>::infinity();
  const Impact found = resolve(c);
  EXPECT_EQ(reason_of(found, 2), Reason::NonFinite);
  EXPECT_EQ(reason_of(found, 0), Reason::Converged);
  EXPECT_TRUE(found.velocity.isfinite().all().item<bool>());
}

TEST(Contact, StopsWhereItIsTold) {
  const Contact c = random_worlds(300, 3, 5, false, 10);
  const Impact few = resolve(c, {.stop = {.max_steps = 1, .rel_tol = 1e-9}});
  EXPECT_GT(few.report.count(Reason::MaxSteps), 0);
  EXPECT_LE(few.report.steps.max().item<int64_t>(), 1);
  EXPECT_EQ(few.report.count(Reason::MaxSteps) + few.report.count(Reason::Converged), 300);
  EXPECT_TRUE(resolve(c).report.converged());
  const Impact strict = resolve(c, {.stop = {.max_steps = 100, .rel_tol = 1e-300}});
  EXPECT_GT(strict.report.count(Reason::MaxSteps), 0);
}

TEST(Contact, WarmTakesOneFactorisation) {
  const Contact c = random_worlds(100, 3, 5, false, 11);
  const Impact cold = resolve(c);
  EXPECT_GT(cold.factorisations.max().item<int64_t>(), 1);
  const Impact warm = resolve(c, {.warm = &cold.touch});
  EXPECT_EQ(warm.factorisations.max().item<int64_t>(), 1);
  EXPECT_EQ(warm.report.steps.max().item<int64_t>(), 1);
  EXPECT_LE((warm.velocity - cold.velocity).abs().max().item<double>(), 1e-12);
  const Tensor wrong = at::zeros_like(cold.touch);
  EXPECT_LE(violations(c, resolve(c, {.warm = &wrong})).max().item<double>(), 1e-10);
}

TEST(Contact, DependentImpulsesLeaveTheVelocityAlone) {
  // Pushed gently the box sticks at both corners: the split of friction is open.
  Contact c = corners({0, 0, 0}, {0, 0.05, -0.2}, 0.5);
  c.impulse.requires_grad_();
  const Impact found = resolve(c);
  EXPECT_EQ(reason_of(found), Reason::Converged);
  EXPECT_EQ(found.dependent[0].item<int64_t>(), 1);
  EXPECT_LE(found.velocity.detach().abs().max().item<double>(), 1e-15);
  const Tensor g = torch::autograd::grad({found.velocity.sum()}, {c.impulse})[0];
  EXPECT_LE(g.abs().max().item<double>(), 1e-14);
  EXPECT_LE(found.adjoint().worst_residual(), 1e-12);
  EXPECT_EQ(resolve(corners({0, 0, 0}, {0, 0.5, -0.2}, 0.5)).dependent[0].item<int64_t>(), 0);
}

TEST(Contact, ActiveKeepsTheFirstOfRowsThatDependOnEachOther) {
  // A row twice: the impulse is shared, and so is its gradient in LeastNorm.
  Contact c = body({0, 0, -1}, {0, 0, 0}, {0, 0, 1, 0, 0, 1}, {0, 1, 0, 0, 1, 0}, 0);
  c.bias = at::zeros({2}, at::kDouble).requires_grad_();
  const auto gradient = [&](const Degenerate& degenerate) {
    const Impact found = resolve(c, {.degenerate = degenerate});
    EXPECT_EQ(reason_of(found), Reason::Converged);
    EXPECT_LE((found.normal_impulse.detach() - 1).abs().max().item<double>(), 1e-14);
    return torch::autograd::grad({found.velocity[2]}, {c.bias})[0];
  };
  EXPECT_TRUE(at::allclose(gradient(Degenerate::LeastNorm), numbers({-0.5, -0.5}, {2})));
  EXPECT_TRUE(at::allclose(gradient(Degenerate::Active), numbers({-1, 0}, {2})));
}

TEST(Contact, SlidingOnRowsThatDependWithOtherFrictionIsNotUnique) {
  Contact c = body({0, 3, -1}, {0, 0, 0}, {0, 0, 1, 0, 0, 1}, {0, 1, 0, 0, 1, 0}, 0);
  c.friction = numbers({0.1, 0.4}, {2});
  c.velocity.requires_grad_();
  const Impact found = resolve(c);
  EXPECT_EQ(reason_of(found), Reason::NotUnique);
  EXPECT_LE(found.report.worst_residual(), 1e-12);
  EXPECT_EQ(
      torch::autograd::grad({found.velocity.sum()}, {c.velocity})[0].abs().sum().item<double>(), 0);
  c.friction.fill_(0.2);
  EXPECT_EQ(reason_of(resolve(c)), Reason::Converged);
}

TEST(Contact, AWeaklyActiveContactIsHeldOrLetGo) {
  const auto gradient = [](const Degenerate& degenerate) {
    Contact c = block({0, 1, 0}, {0, 0, 0}, 0.5);  // touches, and is not pressed
    c.impulse.requires_grad_();
    const Impact found = resolve(c, {.degenerate = degenerate});
    EXPECT_EQ(found.weak[0].item<int64_t>(), 1);
    return torch::autograd::grad({found.velocity[2]}, {c.impulse})[0][2].item<double>();
  };
  EXPECT_DOUBLE_EQ(gradient(Degenerate::Inactive), 0.5);  // 1 / m
  EXPECT_DOUBLE_EQ(gradient(Degenerate::Active), 0);
  EXPECT_DOUBLE_EQ(gradient(Degenerate::LeastNorm), 0);
  EXPECT_EQ(resolve(block({0, 1, 1e-3}, {0, 0, 0}, 0.5)).weak[0].item<int64_t>(), 0);
}

TEST(Contact, AContactAboutToSlideIsHeldOrLetGo) {
  const auto gradient = [](const Degenerate& degenerate) {
    Contact c = block({0, 0, 0}, {0, 0.5, -1}, 0.5);  // friction at its bound, no motion
    c.impulse.requires_grad_();
    const Impact found = resolve(c, {.degenerate = degenerate});
    EXPECT_EQ(found.weak[0].item<int64_t>(), 1);
    EXPECT_EQ(reason_of(found), Reason::Converged);
    return torch::autograd::grad({found.velocity[1]}, {c.impulse})[0];
  };
  EXPECT_TRUE(at::allclose(gradient(Degenerate::Inactive), numbers({0, 0.5, 0.25}, {3})));
  EXPECT_TRUE(at::allclose(gradient(Degenerate::Active), numbers({0, 0, 0}, {3})));
  EXPECT_TRUE(at::allclose(gradient(Degenerate::LeastNorm), numbers({0, 0, 0}, {3})));
}

TEST(Contact, ARowOfZerosIsNone) {
  Contact c = block({0, 2, -3}, {0, 0, 0}, 0.5);
  Contact more = body({0, 2, -3}, {0, 0, 0}, {0, 0, 0, 0, 0, 1}, {1, 1, 1, 0, 1, 0}, 0.5);
  more.bias = numbers({-5, 0}, {2});
  const Impact found = resolve(more);
  EXPECT_TRUE(at::equal(found.velocity, resolve(c).velocity));
  EXPECT_EQ(touch_of(found, 0), Touch::Open);
}

TEST(Contact, FloatsAgreeWithDoubles) {
  Contact c = random_worlds(50, 3, 5, false, 12);
  const Impact found = resolve(c);
  for (Tensor* t :
       {&c.mass, &c.velocity, &c.impulse, &c.normal, &c.tangent, &c.restitution, &c.friction})
    *t = t->to(at::kFloat);
  const Impact single = resolve(c);
  EXPECT_EQ(single.velocity.scalar_type(), at::kFloat);
  EXPECT_LE((single.velocity - found.velocity).abs().max().item<double>(), 2e-5);
}

TEST(Contact, AnEmptyBatchIsNone) {
  Contact c = random_worlds(1, 2, 3, true, 13);
  for (Tensor* t : {&c.mass, &c.velocity, &c.impulse, &c.normal, &c.tangent, &c.restitution,
                    &c.friction, &c.joint})
    *t = t->narrow(0, 0, 0).clone();
  c.velocity.requires_grad_();
  const Impact found = resolve(c);
  EXPECT_EQ(found.velocity.sizes(), at::IntArrayRef({0, 6}));
  EXPECT_EQ(torch::autograd::grad({found.velocity.sum()}, {c.velocity})[0].numel(), 0);
}

TEST(Contact, FreeBodiesAndFrictionlessOnes) {
  const Contact free{.mass = at::eye(3, at::kDouble),
                     .velocity = numbers({1, 2, 3}, {3}),
                     .impulse = numbers({0, 0, -1}, {3})};
  EXPECT_TRUE(at::equal(resolve(free).velocity, numbers({1, 2, 2}, {3})));
  Contact smooth = block({0, 2, -3}, {0, 0, 0}, 0.5);
  smooth.tangent = smooth.friction = smooth.restitution = Tensor();
  EXPECT_TRUE(at::equal(resolve(smooth).velocity, numbers({0, 2, 0}, {3})));
}

TEST(Contact, SaysWhatDoesNotFit) {
  const auto message = [](const Contact& c, const ResolveOptions& options = {}) {
    try {
      resolve(c, options);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  Contact c = block({0, 2, -3}, {0, 0, 0}, 0.5);
  c.friction = numbers({-0.25}, {1});
  EXPECT_EQ(message(c), "friction = -0.25; expected >= 0");
  c.friction = numbers({0.25, 1}, {2});
  EXPECT_EQ(message(c), "friction = [2]; expected [1]");
  c.friction = at::ones({1}, at::kFloat);
  EXPECT_EQ(message(c), "friction is of type Float; expected Double, velocity's");
  c.friction = at::ones({1, 1, 1}, at::kDouble);
  EXPECT_EQ(message(c), "friction = [1, 1, 1]; expected 1 dimension, or 2 with a batch");
  c.friction = at::ones({2, 1}, at::kDouble);
  c.velocity = at::ones({3, 3}, at::kDouble);
  EXPECT_EQ(message(c), "friction = [2, 1]; expected a batch of 3, as before it");
  EXPECT_EQ(message({}), "velocity is undefined; expected (n) or (B, n)");
  c = block({0, 2, -3}, {0, 0, 0}, 0.5);
  EXPECT_EQ(message(c, {.degenerate = Degenerate::Smoothed(1)}),
            "ResolveOptions.degenerate = Smoothed; expected Inactive, Active or LeastNorm");
  const Tensor warm = at::zeros({2}, at::kByte);
  EXPECT_EQ(message(c, {.warm = &warm}), "warm = [2]; expected touch [1, 1]");
}

TEST(Contact, DifferentiatesOnce) {
  Contact c = block({0, 2, -3}, {0, 0, 0}, 0.5);
  c.velocity.requires_grad_();
  const Tensor loss = resolve(c).velocity.sum();
  EXPECT_THROW(torch::autograd::grad({loss}, {c.velocity}, {}, true, /*create_graph=*/true), Error);
}

TEST(Contact, WritingToItsInputBeforeBackwardIsAnError) {
  Contact c = block({0, 2, -3}, {0, 0, 0}, 0.5);
  c.velocity.requires_grad_();
  const Tensor loss = resolve(c).velocity.sum();
  c.mass.mul_(2);
  EXPECT_ANY_THROW(torch::autograd::grad({loss}, {c.velocity}));
}

}  // namespace
}  // namespace deq::testing
