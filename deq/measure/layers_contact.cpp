// Contact: worlds of a few bodies, one step with its gradient.
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>

#include "deq/layers/contact.h"
#include "deq/layers/world.h"
#include "deq/measure/layer_workloads.h"

namespace deq {
namespace {

using at::Tensor;

const at::TensorOptions kReal(at::kDouble);

/// Random bodies, contacts with the ground and between bodies, as in the oracle; joints pin the
/// first body to the second, and hold before.
Contact random_worlds(int64_t worlds, int64_t bodies, int64_t contacts, bool joint) {
  const int64_t n = 3 * bodies;
  Contact c;
  c.mass = at::diag_embed(0.3 + 2 * at::rand({worlds, n}, kReal));
  c.velocity = at::randn({worlds, n}, kReal);
  c.impulse = 0.1 * at::randn({worlds, n}, kReal);
  c.normal = at::zeros({worlds, contacts, n}, kReal);
  c.tangent = at::zeros({worlds, contacts, n}, kReal);
  for (int64_t i = 0; i < contacts; ++i) {
    const Tensor angle = 6.28 * at::rand({worlds}, kReal);
    const Tensor x = at::cos(angle), y = at::sin(angle);
    const int64_t first = i % bodies, second = i < bodies ? -1 : (i + 1) % bodies;
    for (const auto& [body, sign] : {std::pair{first, 1.0}, std::pair{second, -1.0}}) {
      if (body < 0) continue;
      const auto set = [&](Tensor& J, const Tensor& along, const Tensor& across) {
        J.select(1, i)
            .narrow(1, 3 * body, 3)
            .copy_(sign * at::stack({at::rand({worlds}, kReal) - 0.5, along, across}, 1));
      };
      set(c.normal, x, y);
      set(c.tangent, y, -x);
    }
  }
  c.restitution = at::rand({worlds, contacts}, kReal);
  c.friction = 0.8 * at::rand({worlds, contacts}, kReal);
  if (!joint) return c;
  c.joint = at::zeros({worlds, 2, n}, kReal);
  for (int64_t axis = 0; axis < 2; ++axis) {
    c.joint.select(1, axis).select(1, 1 + axis).fill_(1);
    c.joint.select(1, axis).select(1, 4 + axis).fill_(-1);
    c.joint.select(1, axis).select(1, 0).copy_(at::rand({worlds}, kReal) - 0.5);
    c.joint.select(1, axis).select(1, 3).copy_(at::rand({worlds}, kReal) - 0.5);
  }
  c.restitution.zero_();  // else friction may wedge bodies that are to part
  c.velocity = resolve({.mass = c.mass, .velocity = c.velocity, .joint = c.joint}).velocity;
  return c;
}

LayerCost counted(std::string part, double milliseconds, const Impact& found) {
  LayerCost cost = cost_of(std::move(part), milliseconds, found.report);
  cost.factorisations = found.factorisations.to(at::kDouble).mean().item<double>();
  return cost;
}

std::vector<LayerCost> run(Contact contact, int64_t repeats) {
  Impact found;
  std::vector<LayerCost> costs;
  const double cold = least_milliseconds(repeats, [&] { found = resolve(contact); });
  costs.push_back(counted("cold", cold, found));
  const Tensor touch = found.touch;
  const double warm =
      least_milliseconds(repeats, [&] { found = resolve(contact, {.warm = &touch}); });
  costs.push_back(counted("warm", warm, found));
  std::vector<Tensor> inputs;
  for (Tensor* input : {&contact.mass, &contact.velocity, &contact.impulse, &contact.normal,
                        &contact.tangent, &contact.restitution, &contact.friction, &contact.joint})
    if (input->defined()) inputs.push_back(input->requires_grad_());
  const double step = least_milliseconds(repeats, [&] {
    found = resolve(contact);
    torch::autograd::grad({found.velocity.sum()}, inputs);
  });
  costs.push_back(counted("cold, and all gradients", step, found));
  return costs;
}

/// Worlds of two boxes and a disc on the ground, one step with its gradient to the state, friction
/// and mass.
std::vector<LayerCost> run_world(int64_t worlds, int64_t repeats) {
  const auto number = [](double x) { return at::scalar_tensor(x, kReal); };
  const auto numbers = [](std::vector<double> x) { return at::tensor(x, at::kDouble); };
  const Tensor mass = (1 + at::rand({worlds}, kReal)).requires_grad_(),
               friction = at::rand({worlds}, kReal).requires_grad_(),
               v = at::randn({worlds, 3}, kReal).requires_grad_();
  const Box box{number(0.4), number(0.4)};
  LayerCost cost;
  cost.part = "a step and its gradient";
  cost.samples = worlds;
  cost.milliseconds = least_milliseconds(repeats, [&] {
    World world({{box, mass, {}, numbers({0, 0.2, 0}), v, friction},
                 {box, mass, {}, numbers({0.1, 0.6, 0}), {}, friction},
                 {Disc{number(0.1)}, mass, {}, numbers({0.5, 0.1, 0}), v, friction}},
                {{numbers({0, 1}), {}, friction}}, {}, {.gravity = numbers({0, -9.81})});
    world.step(0.01);
    torch::autograd::grad({world.position.sum()}, {mass, friction, v});
  });
  return {cost};
}

}  // namespace

std::vector<LayerWorkload> contact_workloads() {
  const auto contact = [](int64_t worlds, int64_t bodies, int64_t contacts, bool joint) {
    return [=](const LayersOptions& options) {
      return run(random_worlds(samples_of(options, worlds), bodies, contacts, joint),
                 options.repeats);
    };
  };
  const auto world = [](int64_t worlds) {
    return [=](const LayersOptions& options) {
      return run_world(samples_of(options, worlds), options.repeats);
    };
  };
  return {{"contact-5", contact(1000, 3, 5, false)},
          {"contact-5-joint", contact(1000, 3, 5, true)},
          {"contact-5-bodies", contact(1000, 5, 5, false)},
          {"contact-20", contact(100, 10, 20, false)},
          {"world-1000", world(1000)},
          {"world-1", world(1)}};
}

}  // namespace deq
