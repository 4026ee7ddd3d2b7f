// What has nothing to do with a contact changes nothing of it, however fast it moves.
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "deq/layers/contact.h"
#include "tests/layers/contact_cases.h"

namespace deq::testing {
namespace {

using at::Tensor;

/// The velocities of all worlds times `factor`.
Contact faster(Contact c, double factor) {
  for (Tensor* t : {&c.velocity, &c.impulse, &c.bias, &c.joint_bias})
    if (t->defined()) *t = *t * factor;
  return c;
}

Tensor blocks(const Tensor& x, const Tensor& y) {
  const Tensor upper = at::cat({x, at::zeros({x.size(0), x.size(1), y.size(2)}, x.options())}, 2),
               lower = at::cat({at::zeros({y.size(0), y.size(1), x.size(2)}, y.options()), y}, 2);
  return at::cat({upper, lower}, 1);
}

/// World b of x and world b of y as one.
Contact beside(const Contact& x, const Contact& y) {
  Contact both;
  for (Tensor Contact::*t : {&Contact::velocity, &Contact::impulse, &Contact::restitution,
                             &Contact::friction, &Contact::bias, &Contact::joint_bias})
    if ((x.*t).defined()) both.*t = at::cat({x.*t, y.*t}, 1);
  for (Tensor Contact::*t : {&Contact::mass, &Contact::normal, &Contact::tangent, &Contact::joint})
    if ((x.*t).defined()) both.*t = blocks(x.*t, y.*t);
  return both;
}

/// Of the sum of some velocities, in the velocities before.
Tensor gradient(const Contact& c, const Tensor& weights, Impact& found) {
  Contact own = c;
  own.velocity = c.velocity.clone().requires_grad_();
  found = resolve(own);
  const Tensor loss = (found.velocity.narrow(1, 0, weights.size(1)) * weights).sum();
  return torch::autograd::grad({loss}, {own.velocity})[0];
}

double most(const Tensor& x) { return x.abs().max().item<double>(); }

/// Weakly active contacts among them.
Contact some_worlds(bool joints, uint64_t seed) {
  Contact c = random_worlds(30, 2, 3, joints, seed);
  c.velocity.narrow(0, 0, 10).zero_(), c.impulse.narrow(0, 0, 10).zero_();
  c.impulse.narrow(0, 5, 5).add_(-1e-4);
  if (joints) c.restitution.zero_();
  return c;
}

TEST(ContactIslands, AWorldBesideAFastOneIsAsAlone) {
  for (const bool joints : {false, true}) {
    const Contact own = some_worlds(joints, 1), other = random_worlds(30, 2, 3, joints, 2);
    const Tensor weights = at::randn({30, 6}, at::make_generator<at::CPUGeneratorImpl>(3ul));
    Impact alone, both;
    const Tensor expected = gradient(own, weights, alone);
    EXPECT_GT(alone.weak.sum().item<int64_t>(), 0);
    for (const double factor : {1e8, 1e-8, 1e12}) {
      Contact fast = faster(other, factor);
      if (joints) fast.restitution.zero_();
      const Tensor g = gradient(beside(own, fast), weights, both);
      const Impact beyond = resolve(fast);
      EXPECT_TRUE(at::equal(both.velocity.detach().narrow(1, 0, 6), alone.velocity.detach()));
      EXPECT_TRUE(at::equal(both.velocity.detach().narrow(1, 6, 6), beyond.velocity));
      EXPECT_TRUE(at::equal(g.narrow(1, 0, 6), expected));
      EXPECT_EQ(most(g.narrow(1, 6, 6)), 0);
      EXPECT_TRUE(at::equal(both.weak, alone.weak + beyond.weak));
      EXPECT_TRUE(at::equal(both.touch.narrow(1, 0, 3), alone.touch));
      EXPECT_TRUE(
          at::equal(both.report.reason, at::maximum(alone.report.reason, beyond.report.reason)));
    }
  }
}

TEST(ContactIslands, GradientsOfEntriesThatTieNothing) {
  const Contact own = random_worlds(3, 1, 2, false, 4), other = random_worlds(3, 2, 3, false, 5);
  check_gradients(contact_case("islands", beside(own, other)));
  check_samples_alone(contact_case("islands", beside(own, other)));
}

TEST(ContactIslands, TheWorstReasonIsTheWorlds) {
  // A contact and a joint, of which only the second world cannot meet both.
  Contact own = random_worlds(1, 1, 1, false, 6), jammed = own;
  own.joint = at::zeros({1, 1, 3}, at::kDouble), own.joint.select(2, 0).fill_(1);
  own.joint_bias = at::zeros({1, 1}, at::kDouble);
  own.bias = at::zeros({1, 1}, at::kDouble);
  jammed = own;
  jammed.joint = jammed.normal.clone();
  jammed.joint_bias = at::ones({1, 1}, at::kDouble);
  jammed.restitution = at::zeros({1, 1}, at::kDouble);
  const Impact found = resolve(beside(own, jammed));
  EXPECT_EQ(found.report.reason[0].item<uint8_t>(), uint8_t(Reason::Infeasible));
  EXPECT_EQ(most(found.velocity), 0);
  EXPECT_EQ(most(found.certificate.index_select(1, at::tensor({0, 2}, at::kLong))), 0);
  EXPECT_GT(most(found.certificate), 0);
  EXPECT_NEAR(found.certificate[0][1].item<double>(), found.certificate[0][3].item<double>(),
              1e-12);
  Contact massless = jammed;
  massless.mass = at::zeros({1, 3, 3}, at::kDouble);
  EXPECT_EQ(resolve(beside(jammed, massless)).report.reason[0].item<uint8_t>(),
            uint8_t(Reason::NotConvex));
}

TEST(ContactIslands, HowFastAWorldMovesMeansNothing) {
  const Contact c = some_worlds(false, 7);
  const Tensor weights = at::ones({30, 6}, at::kDouble);
  Impact slow, fast;
  const Tensor expected = gradient(c, weights, slow);
  for (const double factor : {0x1p-60, 0x1p-27, 0x1p27, 0x1p60}) {
    const Tensor g = gradient(faster(c, factor), weights, fast);
    EXPECT_TRUE(at::equal(fast.velocity.detach(), factor * slow.velocity.detach()));
    EXPECT_TRUE(at::equal(g, expected));
    EXPECT_TRUE(at::equal(fast.weak, slow.weak));
  }
}

TEST(ContactMasses, TooFarApartAreNoContradiction) {
  // A light body between a wall and a heavy one: v+ = 0.
  for (const double mass : {1e-12, 1e-14, 1e-16, 1e-20}) {
    const Contact c{.mass = at::diag(at::tensor({mass, 1.0}, at::kDouble)),
                    .velocity = at::tensor({-1.0, -2.0}, at::kDouble),
                    .normal = at::tensor({1.0, 0.0, -1.0, 1.0}, at::kDouble).view({2, 2})};
    const Impact found = resolve(c);
    const Reason reason = Reason(found.report.reason[0].item<uint8_t>());
    EXPECT_TRUE(reason == Reason::Converged || reason == Reason::MaxSteps)
        << mass << describe(found.report);
    EXPECT_LE(most(found.velocity), 1e-14) << mass;
  }
}

TEST(ContactIslands, AContactIsWeakByItsOwnNumbers) {
  // One body on the ground at v = -1; another a long way off at 1e8.
  Contact c{.mass = at::eye(2, at::kDouble),
            .velocity = at::tensor({-1.0, -1e8}, at::kDouble).requires_grad_(),
            .normal = at::eye(2, at::kDouble),
            .restitution = at::tensor({0.5, 0.0}, at::kDouble)};
  for (const double v : {1e8, 1e12, 1e16}) {
    c.velocity = at::tensor({-1.0, -v}, at::kDouble).requires_grad_();
    const Impact found = resolve(c, {.degenerate = Degenerate::Inactive});
    EXPECT_EQ(found.weak[0].item<int64_t>(), 0);
    EXPECT_EQ(found.velocity[0].item<double>(), 0.5);
    const Tensor g = torch::autograd::grad({found.velocity[0]}, {c.velocity})[0];
    EXPECT_TRUE(at::equal(g, at::tensor({-0.5, 0.0}, at::kDouble)));
  }
}

TEST(ContactMasses, ALightBodyBetweenAHeavyOneAndTheGroundComesToRest) {
  for (const double light : {1.0, 1e-3, 1e-6, 1e-8, 1e-10, 1e6, 1e10}) {
    Contact c;
    c.mass = at::diag(at::tensor({light, 1.0}, at::kDouble));
    c.velocity = at::tensor({-1.0, -2.0}, at::kDouble);
    c.normal = at::tensor({1.0, 0.0, -1.0, 1.0}, at::kDouble).view({2, 2});
    const Impact found = resolve(c);
    EXPECT_TRUE(found.report.converged()) << light << " " << describe(found.report);
    EXPECT_LE(found.velocity.abs().max().item<double>(), 1e-15) << light;
    EXPECT_NEAR(found.normal_impulse[0].item<double>(), 2 + light, 1e-15 * (2 + light));
    EXPECT_NEAR(found.normal_impulse[1].item<double>(), 2, 1e-6);
  }
}

/// Against what a chain of touching bodies does without friction: it is thrown down on the ground,
/// each body faster than the one below it, and comes to rest; or slower, and comes apart.
TEST(ContactMasses, ChainsOfAnyMasses) {
  auto generator = at::make_generator<at::CPUGeneratorImpl>(34);
  for (int trial = 0; trial < 200; ++trial) {
    const int64_t n = 2 + trial % 5;
    const Tensor masses = at::pow(10, 10 * at::rand({n}, generator, at::kDouble) - 5);
    Contact c;
    c.mass = at::diag(masses);
    c.normal = at::eye(n, at::kDouble);
    for (int64_t i = 1; i < n; ++i) c.normal[i][i - 1] = -1;
    const bool falls = trial % 2 == 0;
    const Tensor speeds = at::cumsum(at::rand({n}, generator, at::kDouble) + 0.1, 0);
    c.velocity = falls ? -speeds : speeds;
    const Impact found = resolve(c);
    EXPECT_TRUE(found.report.converged()) << describe(found.report) << masses;
    const Tensor wanted = falls ? at::zeros_like(speeds) : speeds;
    EXPECT_LE((found.velocity - wanted).abs().max().item<double>(), 1e-14) << masses;
    EXPECT_EQ(found.weak.item<int64_t>(), 0) << masses;
  }
}

TEST(ContactMasses, GradientsAreThoseOfDifferences) {
  Contact c = random_worlds(6, 2, 3, false, 35);
  c.mass.narrow(1, 0, 3).mul_(1e3);
  check_gradients(contact_case("contact, masses", c), 1e-5, 1e-6);
}

}  // namespace
}  // namespace deq::testing
