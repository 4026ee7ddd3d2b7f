#include "tests/oracle/equilibria.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/nn/module.h>

#include <algorithm>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "deq/cells/implicit.h"
#include "deq/cells/monotone.h"
#include "deq/cells/monotone_convolution.h"
#include "deq/cells/perron_frobenius.h"
#include "deq/cells/project_rows.h"
#include "deq/files/safetensors.h"
#include "deq/gradients/implicit.h"
#include "deq/layers/compose.h"
#include "deq/layers/equilibrium.h"
#include "deq/solvers/anderson.h"
#include "deq/solvers/broyden.h"
#include "deq/solvers/douglas_rachford.h"
#include "deq/solvers/forward_backward.h"
#include "deq/solvers/peaceman_rachford.h"
#include "deq/solvers/picard.h"

namespace deq::testing {
namespace {

using at::Tensor;
using Json = nlohmann::json;
using Tensors = std::map<std::string, Tensor>;
constexpr double kValue = 1e-10, kGradient = 1e-8;

struct Case {
  std::string name;
  Json config;
  Tensors tensors;
  std::map<std::string, std::pair<double, double>> errors;  // with what is allowed

  const Tensor& at(const std::string& key) const {
    const auto found = tensors.find(key);
    DEQ_CHECK(found != tensors.end(), "{}: tensor '{}' is missing", name, key);
    return found->second;
  }
  Tensor leaf(const std::string& key) const { return at(key).clone().requires_grad_(true); }

  void see(const std::string& what, double error, double allowed) {
    auto& [worst, limit] = errors[what];
    if (!(error <= worst)) worst = error;
    limit = allowed;
  }
  /// Relative to the largest entry.
  void compare(const std::string& what, const Tensor& ours, const std::string& key,
               double allowed) {
    const Tensor theirs = at(key).view(ours.sizes());
    const double size = std::max(1e-300, theirs.abs().max().item<double>());
    see(what, (ours.detach() - theirs).abs().max().item<double>() / size, allowed);
  }
  void compare_gradients(const Tensor& loss, const std::map<std::string, Tensor>& leaves) {
    std::vector<Tensor> inputs;
    for (const auto& [name, leaf] : leaves) inputs.push_back(leaf);
    const auto gradients = torch::autograd::grad({loss}, inputs);
    size_t i = 0;
    for (const auto& [name, leaf] : leaves)
      compare("gradient", gradients[i++], "out.grad." + name, kGradient);
  }
  bool report() const {
    bool good = true;
    std::string line;
    for (const auto& [what, error] : errors) {
      good = good && error.first <= error.second;
      line += fmt::format("  {} {:.1e}", what, error.first);
    }
    fmt::print("{} {}{}\n", good ? "ok    " : "FAILED", name, line);
    return good;
  }
};

Activation activation_of(const Json& config) {
  const std::string name = config.at("activation");
  for (size_t i = 0; i < std::size(Names<Activation>::values); ++i)
    if (name == Names<Activation>::values[i]) return Activation(i);
  throw Error("activation " + name + " is not known");
}

EquilibriumOptions exact(const Solver& solver) {
  const StopRule stop{.max_steps = 20000, .rel_tol = 1e-13};
  return {.solver = solver, .stop = stop, .gradient = Implicit{.solver = solver, .stop = stop}};
}

void set(Cell& cell, const std::string& name, const Tensor& value) {
  at::NoGradGuard no_tape;
  Tensor parameter = cell.named_parameters()[name];
  parameter.copy_(value.view(parameter.sizes()));
}

/// z* of a cell; what it says of its solves must hold.
Tensor solved(Case& c, const Map& f, const Tensor& z0, const Solver& solver,
              const std::function<Tensor(const Tensor&)>& loss,
              const std::map<std::string, Tensor>& leaves) {
  const Equilibrated found = equilibrium(f, z0, exact(solver));
  c.compare_gradients(loss(found.z), leaves);
  c.see("residual", found.report.worst_residual(), 2e-13);
  c.see("adjoint", found.adjoint().worst_residual(), 2e-13);
  return found.z;
}

std::vector<Solver> splittings() {
  return {PeacemanRachford{},
          PeacemanRachford{.memory = 0},
          PeacemanRachford{.alpha = 2},
          DouglasRachford{},
          ForwardBackward{},
          ForwardBackward{.memory = 0}};
}

void check_monotone(Case& c) {
  for (const int64_t direct : {0, 64}) {
    for (const Solver& solver : splittings()) {
      Monotone options{.width = c.config.at("n"),
                       .input = c.config.at("inputs"),
                       .margin = c.config.at("m"),
                       .activation = activation_of(c.config),
                       .direct = direct};
      MonotoneCell cell(options);
      cell.to(at::kDouble);
      for (const auto& [key, own] : std::map<std::string, std::string>{
               {"A", "A"}, {"B", "B"}, {"U", "inject.weight"}, {"b", "inject.bias"}})
        set(cell, own, c.at("weight." + key));
      if (c.tensors.count("out.W")) c.compare("W", cell.weight(), "out.W", kValue);
      const Tensor x = c.leaf("in.x"), g = c.at("in.grad_z");
      const Bound f = cell.bind(x.unsqueeze(1), {});
      const auto parameters = cell.named_parameters();
      const Tensor z = solved(c, f.f, at::zeros({x.size(0), 1, options.width}, at::kDouble), solver,
                              [&](const Tensor& z) { return (z.squeeze(1) * g).sum(); },
                              {{"A", parameters["A"]},
                               {"B", parameters["B"]},
                               {"U", parameters["inject.weight"]},
                               {"b", parameters["inject.bias"]},
                               {"x", x}});
      c.compare("z", z, "out.z", kValue);
    }
  }
}

void check_monotone_convolution(Case& c) {
  for (const Solver& solver : splittings()) {
    MonotoneConvolution options{.width = c.config.at("channels"),
                                .input = c.config.at("in_channels"),
                                .kernel = c.config.at("kernel"),
                                .dimensions = c.at("in.x").dim() - 2,
                                .margin = c.config.at("m"),
                                .activation = activation_of(c.config)};
    MonotoneConvolutionCell cell(options);
    cell.to(at::kDouble);
    for (const auto& [key, own] :
         std::map<std::string, std::string>{{"A", "A"}, {"B", "B"}, {"U", "inject"}, {"b", "bias"}})
      set(cell, own, c.at("weight." + key));
    set(cell, "g", at::cat({c.at("weight.g"), c.at("weight.h")}));
    const Tensor x = c.leaf("in.x"), g = c.at("in.grad_z");  // channels first
    const Tensor own_x = x.movedim(1, -1).contiguous();
    std::vector<int64_t> shape = own_x.sizes().vec();
    shape.back() = options.width;
    const auto parameters = cell.named_parameters();
    const Equilibrated found =
        equilibrium(cell.bind(own_x, {}).f, at::zeros(shape, at::kDouble), exact(solver));
    const Tensor z = found.z.movedim(-1, 1);
    const auto gradients = torch::autograd::grad(
        {(z * g).sum()}, {parameters["A"], parameters["B"], parameters["inject"],
                          parameters["bias"], parameters["g"], x});
    c.see("residual", found.report.worst_residual(), 2e-13);
    c.see("adjoint", found.adjoint().worst_residual(), 2e-13);
    c.compare("z", z, "out.z", kValue);
    const char* names[] = {"A", "B", "U", "b"};
    for (size_t i = 0; i < 4; ++i)
      c.compare("gradient", gradients[i], std::string("out.grad.") + names[i], kGradient);
    c.compare("gradient", gradients[4].narrow(0, 0, 1), "out.grad.g", kGradient);
    c.compare("gradient", gradients[4].narrow(0, 1, 1), "out.grad.h", kGradient);
    c.compare("gradient", gradients[5], "out.grad.x", kGradient);
  }
}

void check_implicit(Case& c) {
  const bool by_norm = c.config.at("structure") == "infinity-norm";
  if (by_norm && c.tensors.count("in.A_before_projection"))
    c.compare("projection", project_rows_l1(c.at("in.A_before_projection"), c.config.at("kappa")),
              "weight.A", kValue);
  const PerronFrobenius bounds = perron_frobenius(c.at("weight.A"));
  const double known = c.config.at("perron_frobenius");
  c.see("eigenvalue", std::max({bounds.lower - known, known - bounds.upper, 0.0}), 1e-10);
  c.see("its bounds", bounds.upper - bounds.lower, 1e-10);
  for (const bool trains : {false, true}) {
    for (const Solver& solver : {Solver(Anderson{}), Solver(Picard{}), Solver(Broyden{})}) {
      for (const int64_t direct : {0, 64}) {
        WellPosed options{
            .width = c.config.at("n"),
            .input = c.config.at("inputs"),
            .kappa = by_norm ? c.config.at("kappa").get<double>() : 1 - 1e-9,
            .condition = by_norm ? WellPosedness::InfinityNorm : WellPosedness::PerronFrobenius,
            .activation = activation_of(c.config),
            .direct = direct};
        WellPosedCell cell(options);
        cell.to(at::kDouble);
        cell.train(trains);
        set(cell, "A", c.at("weight.A"));
        set(cell, "inject.weight", c.at("weight.B"));
        const Tensor u = c.leaf("in.u"), C = c.leaf("weight.C"), D = c.leaf("weight.D");
        const Bound f = cell.bind(u.unsqueeze(1), {});
        const auto parameters = cell.named_parameters();
        const auto y = [&](const Tensor& x) {
          return at::linear(x.squeeze(1), C) + at::linear(u, D);
        };
        const Tensor x =
            solved(c, f.f, at::zeros({u.size(0), 1, options.width}, at::kDouble), solver,
                   [&](const Tensor& x) { return (y(x) * c.at("in.grad_y")).sum(); },
                   {{"A", parameters["A"]},
                    {"B", parameters["inject.weight"]},
                    {"C", C},
                    {"D", D},
                    {"u", u}});
        c.compare("x", x, "out.x", kValue);
        c.compare("y", y(x), "out.y", kValue);
      }
    }
  }
}

void check_projection(Case& c) {
  const auto kappas = c.config.at("kappa").get<std::vector<double>>();
  for (size_t i = 0; i < kappas.size(); ++i) {
    const std::string s = std::to_string(i);
    const Tensor A = c.leaf("in.A"), out = project_rows_l1(A, kappas[i]);
    const Tensor size = A.detach().abs().amax({1}, true).clamp_min(kappas[i]);
    c.see("projection", ((out.detach() - c.at("out." + s)).abs() / size).max().item<double>(),
          1e-14);
    c.see("zeros", double(out.eq(0).ne(c.at("out." + s).eq(0)).sum().item<int64_t>()), 0);
    const auto found = torch::autograd::grad({(out * c.at("in." + s + ".grad")).sum()}, {A});
    c.compare("gradient", found[0], "out." + s + ".grad.A", kGradient);
  }
}

void check_stacked(Case& c) {
  for (const Solver& solver : {Solver(Anderson{}), Solver(Broyden{.memory = 60})}) {
    std::map<std::string, Tensor> leaves{{"x", c.leaf("in.x")}};
    for (const char* name : {"W1", "U1", "b1", "W2", "U2", "b2"})
      leaves[name] = c.leaf(std::string("weight.") + name);
    const Activation s = activation_of(c.config);
    const Map f1 = [&](const Tensor& z) {
      return activated(
          s, at::linear(z, leaves["W1"], leaves["b1"]) + at::linear(leaves["x"], leaves["U1"]));
    };
    const Above f2 = [&](const Tensor& z, const Tensor& below) {
      return activated(s,
                       at::linear(z, leaves["W2"], leaves["b2"]) + at::linear(below, leaves["U2"]));
    };
    const Composition both =
        stack(f1, f2, at::zeros_like(c.at("out.z1")), at::zeros_like(c.at("out.z2")));
    const Tensor z = solved(
        c, both, both.start, solver,
        [&](const Tensor& z) { return (both.parts(z)[1] * c.at("in.grad_z2")).sum(); }, leaves);
    c.compare("z1", both.parts(z)[0].contiguous(), "out.z1", kValue);
    c.compare("z2", both.parts(z)[1].contiguous(), "out.z2", kValue);
  }
}

void check_feed_forward(Case& c) {
  const size_t hidden = c.config.at("sizes").size() - 2;
  for (const Solver& solver :
       {Solver(Picard{}), Solver(Anderson{}), Solver(Broyden{.memory = 60})}) {
    std::map<std::string, Tensor> leaves{{"x", c.leaf("in.x")}};
    std::vector<Map> levels;
    const Activation s = activation_of(c.config);
    for (size_t i = 0; i <= hidden; ++i) {
      const std::string w = fmt::format("weight.{}", i), b = fmt::format("bias.{}", i);
      leaves[w] = c.leaf(w);
      leaves[b] = c.leaf(b);
      if (i < hidden)
        levels.emplace_back([&leaves, s, w, b](const Tensor& h) {
          return activated(s, at::linear(h, leaves.at(w), leaves.at(b)));
        });
    }
    const Composition one = as_equilibrium(levels, leaves["x"]);
    const std::string w = fmt::format("weight.{}", hidden), b = fmt::format("bias.{}", hidden);
    const auto y = [&](const Tensor& z) {
      return at::linear(one.parts(z).back(), leaves[w], leaves[b]);
    };
    const Tensor z = solved(
        c, one, one.start, solver,
        [&](const Tensor& z) { return (y(z) * c.at("in.grad_y")).sum(); }, leaves);
    c.compare("z", z, "out.z", kValue);
    c.compare("y", y(z), "out.y", kValue);
  }
}

using Check = void (*)(Case&);
const std::map<std::string, Check>& checks() {
  static const std::map<std::string, Check> all{
      {"mondeq", check_monotone},
      {"mondeq-conv", check_monotone_convolution},
      {"implicit", check_implicit},
      {"l1-projection", check_projection},
      {"stacked-equilibria", check_stacked},
      {"feed-forward-as-equilibrium", check_feed_forward}};
  return all;
}

}  // namespace

bool is_equilibrium(const std::string& kind) { return checks().count(kind) > 0; }

bool check_equilibrium(const std::filesystem::path& path) {
  TensorFile file = load_tensors(path);
  Case c{
      path.filename().string(), Json::parse(file.metadata["config"]), std::move(file.tensors), {}};
  checks().at(file.metadata["kind"])(c);
  return c.report();
}

}  // namespace deq::testing
