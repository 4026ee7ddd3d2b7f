// A world as a layer: gradients through impacts, friction and joints; worlds are alone.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "deq/layers/world.h"
#include "tests/layers/layer_suite.h"

namespace deq::testing {
namespace {

using at::Tensor;

Tensor numbers(std::vector<double> values) { return at::tensor(values, at::kDouble); }
Tensor number(double value) { return at::scalar_tensor(value, at::kDouble); }

/// Two worlds of all shapes, joined and not, in motion, with numbers that gradients are wanted of.
LayerCase moving(const std::string& name, bool joints, int64_t B, double dt, int steps) {
  auto generator = at::make_generator<at::CPUGeneratorImpl>(5ul);
  const auto near = [&](std::vector<double> x, double by) {
    const Tensor t = numbers(x);
    return (t + by * at::randn({B, t.size(0)}, generator, at::kDouble));
  };
  LayerCase layer;
  layer.name = name;
  layer.batched = {
      {"q", at::stack({near({0, 0.9, 0.3}, 0.01), near({0.9, 0.6, 0}, 0.01),
                       near({-0.8, 0.7, 0.2}, 0.01)},
                      1)},
      {"v",
       at::stack({near({1, -1, 0.5}, 0.05), near({-1, -1, 0}, 0.05), near({1, -0.5, 1}, 0.05)}, 1)},
      {"mass", near({1, 2, 0.7}, 0.05)},
      {"mu", near({0.3, 0.5, 0.2}, 0.02)},
      {"e", near({0.5, 0.6, 0.4}, 0.02)}};
  layer.shared = {{"size", numbers({0.6, 0.4, 0.2})}, {"gravity", numbers({0, -3})}};
  layer.run = [=](const Tensors& own, const Tensors& shared) {
    const auto of = [&](const char* key, int64_t i) { return own.at(key).select(1, i); };
    const Tensor& size = shared.at("size");
    std::vector<Body> bodies;
    for (int64_t i = 0; i < 3; ++i) {
      Body body{.shape = Box{size[0], size[1]},
                .mass = of("mass", i),
                .position = of("q", i),
                .velocity = of("v", i),
                .friction = of("mu", i),
                .restitution = of("e", i)};
      if (i == 1) body.shape = Disc{size[2]};
      bodies.push_back(body);
    }
    const HalfPlane ground{
        .normal = numbers({0, 1}), .friction = number(0.4), .restitution = number(0.3)};
    std::vector<Joint> joined;
    if (joints) joined.push_back({.first = 0, .second = 2, .anchor = numbers({-0.4, 0.8})});
    World world(bodies, {ground}, joined, {.gravity = shared.at("gravity")});
    Report report;
    for (int step = 0; step < steps; ++step) {
      const Report found = world.step(dt).report;
      if (!report.reason.defined()) {
        report = found;
        continue;
      }
      report.reason = at::where(report.reason.eq(0), found.reason, report.reason);
      report.residual = at::max(report.residual, found.residual);
      report.steps = report.steps + found.steps;
    }
    return LayerResult{{{"q", world.position}, {"v", world.velocity}}, report};
  };
  return layer;
}

TEST(World, GradientsThroughImpactsAndFriction) {
  check_gradients(moving("free", false, 2, 0.1, 8), 1e-6, 1e-5);
}

TEST(World, GradientsThroughJoints) {
  check_gradients(moving("joined", true, 2, 0.05, 10), 1e-6, 1e-5);
}

TEST(World, WorldsAreAlone) {
  check_samples_alone(moving("free", false, 4, 0.1, 6));
  check_samples_alone(moving("joined", true, 3, 0.1, 4));
}

}  // namespace
}  // namespace deq::testing
