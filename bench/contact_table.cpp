// What contact costs: 1,000 worlds of three bodies and five contacts, one step with its gradient.
//   contact_table
// In double, one thread. Prints the least processor time of several runs.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>

#include "bench/milliseconds.h"
#include "deq/layers/contact.h"
#include "deq/layers/world.h"

namespace {

using at::Tensor;

const at::TensorOptions kReal(at::kDouble);

/// Random bodies, contacts with the ground and between bodies, as in the oracle; joints pin the
/// first body to the second, and hold before.
deq::Contact random_worlds(int64_t worlds, int64_t bodies, int64_t contacts, bool joint) {
  const int64_t n = 3 * bodies;
  deq::Contact c;
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
  c.velocity = deq::resolve({.mass = c.mass, .velocity = c.velocity, .joint = c.joint}).velocity;
  return c;
}

void print(const std::string& name, deq::Contact contact, int runs) {
  const deq::Impact found = deq::resolve(contact);
  const double cold = milliseconds(runs, [&] { deq::resolve(contact); });
  const double warm = milliseconds(runs, [&] { deq::resolve(contact, {.warm = &found.touch}); });
  std::vector<Tensor> inputs;
  for (Tensor* input : {&contact.mass, &contact.velocity, &contact.impulse, &contact.normal,
                        &contact.tangent, &contact.restitution, &contact.friction, &contact.joint})
    if (input->defined()) inputs.push_back(input->requires_grad_());
  const double step = milliseconds(
      runs, [&] { torch::autograd::grad({deq::resolve(contact).velocity.sum()}, inputs); });
  fmt::print(
      "{}: forward {:.2f} ms, warm {:.2f}, forward and all gradients {:.2f}; {:.2f} systems and "
      "pivots, {:.2f} factorisations; converged {:.1f}%, worst residual {:.0e}\n",
      name, cold, warm, step, found.report.steps.to(at::kDouble).mean().item<double>(),
      found.factorisations.to(at::kDouble).mean().item<double>(),
      100 * found.report.converged_share(), found.report.worst_residual());
}

/// Worlds of two boxes and a disc on the ground, one step with its gradient to the state, friction
/// and mass.
void print_world(int64_t worlds, int runs) {
  const auto number = [](double x) { return at::scalar_tensor(x, kReal); };
  const auto numbers = [](std::vector<double> x) { return at::tensor(x, at::kDouble); };
  const Tensor mass = (1 + at::rand({worlds}, kReal)).requires_grad_(),
               friction = at::rand({worlds}, kReal).requires_grad_(),
               v = at::randn({worlds, 3}, kReal).requires_grad_();
  const deq::Box box{number(0.4), number(0.4)};
  const double step = milliseconds(runs, [&] {
    deq::World world({{box, mass, {}, numbers({0, 0.2, 0}), v, friction},
                      {box, mass, {}, numbers({0.1, 0.6, 0}), {}, friction},
                      {deq::Disc{number(0.1)}, mass, {}, numbers({0.5, 0.1, 0}), v, friction}},
                     {{numbers({0, 1}), {}, friction}}, {}, {.gravity = numbers({0, -9.81})});
    world.step(0.01);
    torch::autograd::grad({world.position.sum()}, {mass, friction, v});
  });
  fmt::print("World, {} worlds, 3 bodies, 5 contacts: a step and its gradient {:.1f} ms\n", worlds,
             step);
}

}  // namespace

int main() {
  at::set_num_threads(1);
  at::manual_seed(0);
  print("1,000 worlds, 3 bodies, 5 contacts", random_worlds(1000, 3, 5, false), 20);
  print("1,000 worlds, 3 bodies, 5 contacts, a joint", random_worlds(1000, 3, 5, true), 20);
  print("1,000 worlds, 5 bodies, 5 contacts", random_worlds(1000, 5, 5, false), 20);
  print("100 worlds, 10 bodies, 20 contacts", random_worlds(100, 10, 20, false), 10);
  print_world(1000, 5);
  print_world(1, 20);
  return 0;
}
