#include "deq/layers/world.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <limits>

#include "deq/base/error.h"

namespace deq::testing {
namespace {

using at::Tensor;

Tensor numbers(std::vector<double> values) { return at::tensor(values, at::kDouble); }
Tensor number(double value) { return at::scalar_tensor(value, at::kDouble); }

Body disc(const Tensor& position, const Tensor& velocity, double radius = 0.1, double mass = 1,
          double restitution = 1, double friction = 0) {
  return {.shape = Disc{number(radius)},
          .mass = number(mass),
          .position = position,
          .velocity = velocity,
          .friction = number(friction),
          .restitution = number(restitution)};
}
Body box(const Tensor& position, const Tensor& velocity, double width, double height,
         double restitution = 0, double friction = 0.5, double mass = 1) {
  return {.shape = Box{number(width), number(height)},
          .mass = number(mass),
          .position = position,
          .velocity = velocity,
          .friction = number(friction),
          .restitution = number(restitution)};
}
HalfPlane ground(double restitution = 0, double friction = 0.5) {
  return {.normal = numbers({0, 1}),
          .offset = number(0),
          .friction = number(friction),
          .restitution = number(restitution)};
}
WorldOptions falling() { return {.gravity = numbers({0, -10})}; }

TEST(World, TwoBallsHaveTheGradientOfTheTimeOfImpact) {
  const Tensor state = numbers({0, 0.52, 1, 0}).requires_grad_();
  const Tensor zero = number(0);
  World world({disc(at::stack({state[0], zero, zero}), at::stack({state[2], zero, zero})),
               disc(at::stack({state[1], zero, zero}), at::stack({state[3], zero, zero}))});
  const WorldReport found = world.step(1);
  EXPECT_TRUE(found.report.converged());
  EXPECT_EQ(found.impacts.item<int64_t>(), 1);
  const Tensor x2 = world.position[0][1][0];
  EXPECT_NEAR(x2.item<double>(), 1.2, 1e-12);
  const Tensor g = torch::autograd::grad({x2}, {state})[0];
  EXPECT_LE((g - numbers({1, 0, 1, 0})).abs().max().item<double>(), 1e-9);
}

TEST(World, ABallBouncesOffTheGroundAtItsTime) {
  // Meets the ground after 0.5 at a speed of 2, and goes up with half of it.
  const Tensor y = number(1.1).requires_grad_(), e = number(0.5).requires_grad_(),
               v = number(-2).requires_grad_();
  const Tensor zero = number(0);
  Body ball = disc(at::stack({zero, y, zero}), at::stack({zero, v, zero}));
  HalfPlane plane = ground();
  ball.restitution = plane.restitution = e;
  World world({ball}, {plane});
  world.step(1);
  const Tensor height = world.position[0][0][1];
  EXPECT_NEAR(height.item<double>(), 0.6, 1e-12);
  // height = r - e v (T - (y - r) / -v) = r - e (v T + y - r)
  const auto g = torch::autograd::grad({height}, {y, e, v});
  EXPECT_NEAR(g[0].item<double>(), -0.5, 1e-12);
  EXPECT_NEAR(g[1].item<double>(), 1, 1e-12);
  EXPECT_NEAR(g[2].item<double>(), -0.5, 1e-12);
}

TEST(World, ElasticImpactsKeepEnergyAndMomentum) {
  at::manual_seed(3);
  std::vector<Body> bodies;
  for (int i = 0; i < 6; ++i)
    bodies.push_back(disc(numbers({0.5 * (i % 3), 0.6 * (i / 3), 0}), at::randn({3}, at::kDouble),
                          0.15, 1 + 0.3 * i));
  const std::vector<HalfPlane> walls{
      {.normal = numbers({2, 0}), .offset = number(-0.3), .restitution = number(1)},
      {.normal = numbers({-1, 0}), .offset = number(-1.4), .restitution = number(1)},
      {.normal = numbers({0, 1}), .offset = number(-0.3), .restitution = number(1)},
      {.normal = numbers({0, -3}), .offset = number(-1.0), .restitution = number(1)}};
  World world(bodies, walls);
  const Tensor mass = 1 + 0.3 * at::arange(6, at::kDouble);
  const auto energy = [&] {
    const Tensor v = world.velocity[0].narrow(1, 0, 2);
    return (mass * v.square().sum(1)).sum().item<double>() / 2;
  };
  const double before = energy();
  int64_t impacts = 0;
  for (int step = 0; step < 20; ++step) {
    const WorldReport found = world.step(0.1);
    EXPECT_TRUE(found.report.converged()) << describe(found.report);
    impacts += found.impacts.item<int64_t>();
  }
  EXPECT_GT(impacts, 15);
  EXPECT_NEAR(energy(), before, 1e-11 * before);
  const Tensor q = world.position[0];
  for (int i = 0; i < 6; ++i) {
    EXPECT_GE(q[i][0].item<double>(), -0.15 - 1e-9);  // 0.15 off the wall at -0.3 / 2
    EXPECT_LE(q[i][0].item<double>(), 1.4 - 0.15 + 1e-9);
    for (int j = 0; j < i; ++j)
      EXPECT_GE((q[i] - q[j]).narrow(0, 0, 2).norm().item<double>(), 0.3 - 1e-9);
  }
}

TEST(World, ABoxSlidesAndStops) {
  // v = 2, mu g = 5: at rest after 0.4 and 0.4 of way, to the order of the step.
  World world({box(numbers({0, 0.25, 0}), numbers({2, 0, 0}), 1, 0.5)}, {ground()}, {}, falling());
  for (int step = 0; step < 100; ++step) EXPECT_TRUE(world.step(0.01).report.converged());
  EXPECT_LE(world.velocity.abs().max().item<double>(), 1e-12);
  EXPECT_NEAR(world.position[0][0][0].item<double>(), 0.4, 0.011);
  EXPECT_NEAR(world.position[0][0][1].item<double>(), 0.25, 1e-9);
}

TEST(World, AStackOfBoxesStands) {
  World world({box(numbers({0, 0.25, 0}), numbers({0, 0, 0}), 1, 0.5),
               box(numbers({0, 0.75, 0}), numbers({0, 0, 0}), 1, 0.5),
               box(numbers({0.1, 1.25, 0}), numbers({0, 0, 0}), 0.6, 0.5)},
              {ground()}, {}, falling());
  const Tensor before = world.position.clone();
  for (int step = 0; step < 50; ++step) EXPECT_TRUE(world.step(0.01).report.converged());
  EXPECT_LE((world.position - before).abs().max().item<double>(), 1e-8);
}

TEST(World, ATurningBoxMeetsTheGroundWithItsCorner) {
  const double half = 0.5 * std::sqrt(2.0);
  World world({box(numbers({0, 0.6, 0}), numbers({0, 0, 1}), 1, 1, 1, 0)}, {ground(1, 0)});
  const WorldReport found = world.step(1);
  EXPECT_EQ(found.impacts.item<int64_t>(), 1);
  EXPECT_TRUE(found.report.converged());
  EXPECT_GT(world.velocity[0][0][1].item<double>(), 0);
  EXPECT_LT(world.velocity[0][0][2].item<double>(), 1);
  // Energy: m v^2 / 2 + I w^2 / 2 with I = 1 / 6.
  const Tensor v = world.velocity[0][0];
  EXPECT_NEAR((v[1].square() / 2 + v[2].square() / 12).item<double>(), 1.0 / 12, 1e-12);
  EXPECT_LT(half, world.position[0][0][1].item<double>() + 0.2);
}

TEST(World, ADiscMeetsTheCornerAndTheSideOfABox) {
  // Straight down onto the corner of a box that is held by its mass: goes off to the side.
  for (const auto& [x, sideways] : {std::pair{0.55, true}, std::pair{0.3, false}}) {
    World world({disc(numbers({x, 1, 0}), numbers({0, -1, 0})),
                 box(numbers({0, 0, 0}), numbers({0, 0, 0}), 1, 1, 1, 0, 1e9)});
    EXPECT_EQ(world.step(1).impacts.item<int64_t>(), 1);
    const Tensor v = world.velocity[0][0];
    EXPECT_NEAR(v.narrow(0, 0, 2).norm().item<double>(), 1, 1e-6);
    EXPECT_EQ(v[0].item<double>() > 0.1, sideways);
    EXPECT_GT(v[1].item<double>(), 0);
  }
}

TEST(World, JointsHold) {
  // A pendulum of two links, from the side.
  const std::vector<Body> links{box(numbers({0.25, 0, 0}), numbers({0, 0, 0}), 0.5, 0.05),
                                box(numbers({0.75, 0, 0}), numbers({0, 0, 0}), 0.5, 0.05)};
  World world(links, {},
              {{.first = 0, .second = -1, .anchor = numbers({0, 0})},
               {.first = 0, .second = 1, .anchor = numbers({0.5, 0})}},
              falling());
  for (int step = 0; step < 60; ++step) EXPECT_TRUE(world.step(0.005).report.converged());
  const auto end_of = [&](int64_t body, double along) {
    const Tensor q = world.position[0][body];
    return at::stack({q[0] + along * at::cos(q[2]), q[1] + along * at::sin(q[2])});
  };
  EXPECT_LE(end_of(0, -0.25).abs().max().item<double>(), 1e-5);
  EXPECT_LE((end_of(0, 0.25) - end_of(1, -0.25)).abs().max().item<double>(), 1e-5);
  EXPECT_LT(world.position[0][1][1].item<double>(), -0.1);
}

TEST(World, BodiesThatAreInEachOtherArePutRight) {
  World world({disc(numbers({0, 0.05, 0}), numbers({0, 0, 0}))}, {ground()});
  EXPECT_TRUE(world.step(0.1).report.converged());
  EXPECT_NEAR(world.position[0][0][1].item<double>(), 0.1, 1e-12);
  EXPECT_EQ(world.velocity.abs().max().item<double>(), 0);  // no speed comes of it
}

TEST(World, SaysWhenImpactsRunOut) {
  const std::vector<Body> balls{disc(numbers({0, 0, 0}), numbers({10, 0, 0}))};
  const std::vector<HalfPlane> walls{
      {.normal = numbers({1, 0}), .offset = number(-0.5), .restitution = number(1)},
      {.normal = numbers({-1, 0}), .offset = number(-0.5), .restitution = number(1)}};
  World few(balls, walls, {}, {.max_impacts = 5});
  const WorldReport found = few.step(1);
  EXPECT_EQ(Reason(found.report.reason.item<uint8_t>()), Reason::MaxSteps);
  EXPECT_EQ(found.impacts.item<int64_t>(), 5);
  World more(balls, walls, {}, {.max_impacts = 13});
  const WorldReport all = more.step(1);
  EXPECT_TRUE(all.report.converged());
  EXPECT_EQ(all.impacts.item<int64_t>(), 13);  // after 0.04, and then every 0.08
}

TEST(World, PushesAndGravityAct) {
  World world({disc(numbers({0, 5, 0}), numbers({1, 0, 0}), 0.1, 2)}, {}, {}, falling());
  world.step(0.1, numbers({4, 0, 1}).view({1, 3}));
  // I = m r^2 / 2 = 0.01
  EXPECT_TRUE(at::allclose(world.velocity[0][0], numbers({1.2, -1, 10})));
  EXPECT_TRUE(at::allclose(world.position[0][0], numbers({0.12, 4.9, 1})));
}

TEST(World, FrictionAndRestitutionAreMeans) {
  World world({disc(numbers({0, 0.1, 0}), numbers({0, -1, 0}), 0.1, 1, 0.2)}, {ground(0.6, 0)});
  world.step(0.1);
  EXPECT_NEAR(world.velocity[0][0][1].item<double>(), 0.4, 1e-12);
}

TEST(World, TouchingIsAnOption) {
  const auto speed = [](double touching) {
    World world({disc(numbers({0, 0.101, 0}), numbers({0, -1, 0}), 0.1, 1, 0)}, {ground()}, {},
                {.touching = touching});
    const WorldReport found = world.step(1e-4);
    EXPECT_EQ(found.impacts.item<int64_t>(), 0);
    return world.velocity[0][0][1].item<double>();
  };
  EXPECT_EQ(speed(1e-2), 0);
  EXPECT_EQ(speed(1e-9), -1);
}

TEST(World, ResolveIsAnOption) {
  World world({disc(numbers({0, 0.1, 0.3}), numbers({0.3, -1, 0.7}))}, {ground()}, {},
              {.resolve = {.stop = {.max_steps = 10, .rel_tol = 1e-300}}});
  const WorldReport found = world.step(0.1);
  EXPECT_EQ(Reason(found.report.reason.item<uint8_t>()), Reason::MaxSteps);
  EXPECT_TRUE(at::equal(world.position[0][0], numbers({0, 0.1, 0.3})));
}

TEST(World, FloatsGoTheSameWay) {
  const auto run = [](at::ScalarType type) {
    const auto of = [&](std::vector<double> x) { return numbers(x).to(type); };
    const Body ball{.shape = Disc{number(0.1).to(type)},
                    .mass = number(1).to(type),
                    .position = of({0, 1, 0}),
                    .velocity = of({1, -1, 0}),
                    .friction = number(0.5).to(type),
                    .restitution = number(0.5).to(type)};
    const HalfPlane plane{.normal = of({0, 1}), .friction = number(0.5).to(type)};
    World world({ball}, {plane}, {}, {.gravity = of({0, -10})});
    for (int step = 0; step < 30; ++step) EXPECT_TRUE(world.step(0.05).report.converged());
    return world.position.to(at::kDouble);
  };
  EXPECT_LE((run(at::kFloat) - run(at::kDouble)).abs().max().item<double>(), 1e-4);
}

TEST(World, SaysWhatDoesNotFit) {
  const auto message = [](const auto& work) {
    try {
      work();
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  const Body ball = disc(numbers({0, 0, 0}), numbers({0, 0, 0}));
  EXPECT_EQ(message([] { World({}); }), "bodies = []; expected at least one");
  EXPECT_EQ(message([&] {
              Body other = ball;
              other.shape = Disc{number(-1)};
              World({other});
            }),
            "Disc.radius = -1; expected > 0");
  EXPECT_EQ(message([&] {
              Body other = ball;
              other.position = numbers({0, 0});
              World({other});
            }),
            "Body.position = [2]; expected [3] or [1, 3]");
  EXPECT_EQ(message([&] {
              World({ball}, {}, {{.first = 0, .second = 0, .anchor = numbers({0, 0})}});
            }),
            "Joint.second = 0; expected -1 to 0, and not the first");
  EXPECT_EQ(message([&] { World({ball}).step(0); }), "dt = 0; expected > 0");
  EXPECT_EQ(message([&] {
              World({ball}).step(1, numbers({1, 2}));
            }),
            "push = [2]; expected [1, 3] or [1, 1, 3]");
  EXPECT_EQ(message([&] { World({ball}, {}, {}, {.touching = 0}); }),
            "WorldOptions.touching = 0; expected > 0");
}

TEST(World, AWorldThatCannotGoOnStandsStill) {
  Body ball = disc(numbers({0, 0.1, 0}), numbers({0, -1, 0}));
  ball.mass = numbers({1, 0});
  ball.inertia = number(1);
  World world({ball}, {ground()});
  const WorldReport found = world.step(0.1);
  EXPECT_EQ(Reason(found.report.reason[0].item<uint8_t>()), Reason::Converged);
  EXPECT_EQ(Reason(found.report.reason[1].item<uint8_t>()), Reason::NotConvex);
  EXPECT_TRUE(at::equal(world.position[1][0], numbers({0, 0.1, 0})));
  EXPECT_TRUE(world.velocity.isfinite().all().item<bool>());
}

}  // namespace
}  // namespace deq::testing
