// Gradients through impacts: a mass, a friction and a push found from where bodies went; the shot
// that sends a ball by two cushions to its place; the mass of a chain that a ball runs into. By the
// method of Gauss and Newton, with a world for each number that is observed, so that one backward
// pass gives all rows of the Jacobian.
//
//   contact [SEEDS]         3
//
// Prints a line each; the exit code is 1 where 50 iterations do not come within 1e-3.
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>

#include "deq/layers/world.h"

namespace {

using at::Tensor;
Tensor number(double x) { return at::scalar_tensor(x, at::kDouble); }
Tensor numbers(std::vector<double> x) { return at::tensor(x, at::kDouble); }
deq::HalfPlane wall(double x, double y, double offset, double e, const Tensor& mu = {}) {
  return {numbers({x, y}), number(offset), mu, number(e)};
}

/// x and y of all bodies after each `every` steps of dt; forces act in the first six.
Tensor watch(deq::World world, double dt, int every, int times, const Tensor& push = {}) {
  std::vector<Tensor> seen;
  for (int step = 1; step <= every * times; ++step) {
    const deq::WorldReport found = world.step(dt, step <= 6 ? push : Tensor());
    if (!found.report.converged()) fmt::print("{}\n", deq::describe(found.report));
    if (step % every == 0) seen.push_back(world.position.narrow(2, 0, 2).flatten(1));
  }
  return at::cat(seen, 1);
}

/// A box is pushed, slides, and runs into another: its mass, the ground's friction, the push.
Tensor pushed(const Tensor& p) {
  const deq::Box box{number(0.4), number(0.4)};
  const deq::World world({{box, p.select(1, 0), {}, numbers({0, 0.2, 0})},
                          {box, number(1), {}, numbers({0.9, 0.2, 0})}},
                         {wall(0, 1, 0, 0, 2 * p.select(1, 1))}, {},
                         {.gravity = numbers({0, -9.81})});
  return watch(world, 0.05, 4, 5,
               at::constant_pad_nd(p.narrow(1, 2, 1).unsqueeze(1), {0, 2, 0, 1}));
}

/// The velocity of a ball that meets another, which meets two cushions.
Tensor shot(const Tensor& p) {
  const deq::Disc ball{number(0.03)};
  const Tensor m = number(0.17), e = number(0.95), v = at::constant_pad_nd(p, {0, 1});
  const deq::World world({{ball, m, {}, numbers({0.3, 0.3, 0}), v, {}, e},
                          {ball, m, {}, numbers({0.8, 0.5, 0}), {}, {}, e}},
                         {wall(-1, 0, -1.2, 0.95), wall(0, -1, -0.7, 0.95), wall(0, 1, 0, 0.95)});
  return watch(world, 0.4, 2, 1).narrow(1, 2, 2);
}

/// A chain of ten links of this mass hangs from a point; a ball of mass 3 runs into it.
Tensor chain(const Tensor& p) {
  std::vector<deq::Body> bodies;
  std::vector<deq::Joint> joints;
  for (int i = 0; i < 10; ++i) {
    const deq::Box link{number(0.04), number(0.2)};
    bodies.push_back({link, p.select(1, 0) / 10, {}, numbers({0, -0.1 - 0.2 * i, 0})});
    joints.push_back({i, i - 1, numbers({0, -0.2 * i})});
  }
  const Tensor at = numbers({-0.4, -1.3, 0}), v = numbers({4, 0, 0});
  bodies.push_back({deq::Disc{number(0.1)}, number(3), {}, at, v});
  return watch({bodies, {}, joints, {.gravity = numbers({0, -9.81})}}, 0.02, 5, 2);
}

/// Whether `of` is found: parameters, or what is seen, within 1e-3 of the truth.
bool find(const char* name, Tensor (*of)(const Tensor&), const Tensor& truth, Tensor at,
          bool by_sight = false) {
  const Tensor target = of(truth.unsqueeze(0))[0];
  for (int i = 0; i <= 50; ++i) {
    const Tensor p = at.expand({target.size(0), -1}).clone().requires_grad_();
    const Tensor seen = of(p).diagonal(), off = seen.detach() - target;
    const Tensor error = by_sight ? off / target : (at - truth) / truth;
    const double worst = error.abs().max().item<double>();
    if (worst <= 1e-3) return fmt::print("{}: to {:.0e} in {} iterations\n", name, worst, i), true;
    const Tensor J = torch::autograd::grad({seen.sum()}, {p})[0];
    at = at - at::linalg_solve(J.t().mm(J), J.t().mv(off));
  }
  return fmt::print("{}: not found\n", name), false;
}

}  // namespace

int main(int argc, char** argv) {
  bool found = true;
  for (int seed = 0; seed < (argc > 1 ? std::stoi(argv[1]) : 3); ++seed) {
    at::manual_seed(uint64_t(seed));
    const Tensor near = 0.9 + 0.2 * at::rand({6}, at::kDouble);
    const Tensor truth = near * numbers({1.5, 0.3, 20, 1.5, 0.62, 7});
    found &= find("mass, friction, push", pushed, truth.narrow(0, 0, 3), numbers({1, 0.2, 15}));
    found &= find("billiard shot", shot, truth.narrow(0, 3, 2), numbers({1.3, 0.5}), true);
    found &= find("chain of 10 links", chain, truth.narrow(0, 5, 1), numbers({3}));
  }
  return found ? 0 : 1;
}
