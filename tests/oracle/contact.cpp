#include "tests/oracle/contact.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>

#include <nlohmann/json.hpp>

#include "deq/base/error.h"
#include "deq/files/safetensors.h"
#include "deq/layers/contact.h"
#include "deq/layers/world.h"

namespace deq::testing {
namespace {

using at::Tensor;
using Json = nlohmann::json;
constexpr double kValues = 1e-10, kGradients = 1e-8, kFloats = 2e-5;
constexpr double kNothing = 1e-12;  // references below it are 0 but for their rounding

struct Case {
  std::string name;
  Json config;
  TensorFile file;
  std::map<std::string, double> worst = {};
  bool failed = false;

  bool has(const std::string& key) const { return file.tensors.count(key) > 0; }
  Tensor at(const std::string& key) const { return tensor_of(file, key, name); }
  void see(const std::string& what, double error, double tolerance) {
    double& own = worst[what];
    if (!(error <= own)) own = error;
    failed |= !(error <= tolerance);
  }
  /// With the case's tensor of that name, where it has one.
  void compare(const std::string& key, const Tensor& ours, double tolerance, const char* how = "") {
    if (!has(key)) return;
    const Tensor theirs = at(key);
    const double size = theirs.abs().max().item<double>();
    const double error =
        (ours.detach().to(at::kDouble).view_as(theirs) - theirs).abs().max().item<double>();
    see(key + how, size > kNothing ? error / size : error, tolerance);
  }
};

struct Input {
  const char* name;  // in the file
  Tensor Contact::*tensor;
};
constexpr Input kInputs[] = {
    {"M", &Contact::mass},
    {"v", &Contact::velocity},
    {"impulse", &Contact::impulse},
    {"Jc", &Contact::normal},
    {"Jt", &Contact::tangent},
    {"restitution", &Contact::restitution},
    {"friction", &Contact::friction},
    {"Je", &Contact::joint},
};

/// The file has both directions of each tangent, we have their difference.
Tensor both_ways(const Tensor& f) {
  return at::stack({f.clamp_min(0), (-f).clamp_min(0)}, -1).flatten(-2);
}

void check_step(Case& c, at::ScalarType type) {
  const bool single = type == at::kFloat;
  const char* const how = single ? " in float" : "";
  Contact contact;
  std::vector<std::pair<std::string, Tensor>> leaves;
  for (const auto& [name, member] : kInputs) {
    if (!c.has(std::string("in.") + name)) continue;
    contact.*member = c.at(std::string("in.") + name).to(type, false, /*copy=*/true);
    leaves.emplace_back(name, (contact.*member).requires_grad_());
  }
  const Impact found = resolve(contact);
  c.see("not converged", 1 - found.report.converged_share(), 0);
  const double values = single ? kFloats : kValues;
  c.compare("out.v", found.velocity, values, how);
  c.compare("out.normal_impulse", found.normal_impulse, values, how);
  c.compare("out.friction_impulse", both_ways(found.friction_impulse), values, how);
  std::vector<Tensor> inputs;
  for (const auto& leaf : leaves) inputs.push_back(leaf.second);
  Tensor loss = at::zeros({}, found.velocity.options().requires_grad(false));
  const auto add = [&](const char* key, const Tensor& output) {
    if (c.has(key)) loss = loss + (output * c.at(key).to(type)).sum();
  };
  add("in.grad_v", found.velocity);
  add("in.grad_normal_impulse", found.normal_impulse);
  const auto gradients = torch::autograd::grad({loss}, inputs, {}, {}, false, true);
  c.see("adjoint", found.adjoint().worst_residual(), 1e-12);
  for (size_t i = 0; i < leaves.size(); ++i)
    c.compare("out.grad." + leaves[i].first, gradients[i], single ? kFloats : kGradients, how);
}

/// A block that slides on the ground to a stop: steps one after the other.
void check_sliding(Case& c) {
  const Tensor mass = c.at("in.mass").clone().requires_grad_(),
               friction = c.at("in.friction").clone().requires_grad_(),
               v0 = c.at("in.v0").clone().requires_grad_();
  const double dt = c.config.at("dt"), gravity = c.config.at("gravity");
  const int64_t B = mass.size(0), steps = c.config.at("steps");
  const Tensor zero = at::zeros({B}, at::kDouble);
  Contact contact{.mass = at::diag_embed(at::stack({mass, mass}, 1)),
                  .velocity = at::stack({v0, zero}, 1),
                  .impulse = at::stack({zero, -dt * gravity * mass}, 1),
                  .normal = at::tensor({0.0, 1.0}, at::kDouble).view({1, 2}),
                  .tangent = at::tensor({1.0, 0.0}, at::kDouble).view({1, 2}),
                  .friction = friction.unsqueeze(1)};
  std::vector<Tensor> xs{zero}, vs{v0};
  for (int64_t step = 0; step < steps; ++step) {
    const Impact found = resolve(contact);
    c.see("not converged", 1 - found.report.converged_share(), 0);
    contact.velocity = found.velocity;
    vs.push_back(found.velocity.select(1, 0));
    xs.push_back(xs.back() + dt * vs.back());
  }
  c.compare("out.x", at::stack(xs, 1), kValues);
  c.compare("out.v", at::stack(vs, 1), kValues);
  const auto gradients = torch::autograd::grad({xs.back().sum()}, {friction, v0, mass});
  c.compare("out.grad.friction", gradients[0], kGradients);
  c.compare("out.grad.v0", gradients[1], kGradients);
  c.compare("out.grad.mass", gradients[2], kGradients);
}

/// Two equal balls on a line.
void check_time_of_impact(Case& c) {
  const Tensor state = c.at("in.state").clone().requires_grad_(), zero = at::zeros({}, at::kDouble);
  const Tensor restitution = at::full({}, c.config.at("restitution").get<double>(), at::kDouble);
  std::vector<Body> balls;
  for (const int64_t i : {0, 1})
    balls.push_back({.shape = Disc{c.at("in.radius")[0]},
                     .mass = at::ones({}, at::kDouble),
                     .position = at::stack({state[i], zero, zero}),
                     .velocity = at::stack({state[2 + i], zero, zero}),
                     .restitution = restitution});
  World world(balls);
  const WorldReport found = world.step(c.config.at("T"));
  c.see("not converged", 1 - found.report.converged_share(), 0);
  const Tensor end = at::cat({world.position[0].select(1, 0), world.velocity[0].select(1, 0)});
  c.compare("out.state", end, kValues);
  std::vector<Tensor> rows;
  for (int64_t i = 0; i < 4; ++i)
    rows.push_back(torch::autograd::grad({end[i]}, {state}, {}, /*retain_graph=*/true)[0]);
  c.compare("out.jacobian", at::stack(rows), 1e-9);
}

}  // namespace

bool is_contact(const std::string& kind) { return kind.rfind("lcp-", 0) == 0; }

bool check_contact(const std::filesystem::path& path) {
  Case c{.name = path.filename().string(), .config = {}, .file = load_tensors(path)};
  c.config = Json::parse(c.file.metadata.at("config"));
  const std::string& kind = c.file.metadata.at("kind");
  if (kind == "lcp-sliding") {
    check_sliding(c);
  } else if (kind == "lcp-time-of-impact") {
    check_time_of_impact(c);
  } else {
    DEQ_CHECK(kind == "lcp-step" || kind == "lcp-degenerate", "{}: kind {} is not known", c.name,
              kind);
    check_step(c, at::kDouble);
    check_step(c, at::kFloat);
  }
  fmt::print("{} {}", c.failed ? "FAILED" : "ok    ", c.name);
  for (const auto& [what, error] : c.worst) fmt::print("  {} {:.1e}", what, error);
  fmt::print("\n");
  return !c.failed;
}

}  // namespace deq::testing
