#include "tests/oracle/quadratic.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "deq/base/error.h"
#include "deq/files/safetensors.h"
#include "deq/layers/quadratic_program.h"

namespace deq::testing {
namespace {

using at::Tensor;
using Json = nlohmann::json;

struct Case {
  std::string name;
  Json config;
  std::map<std::string, Tensor> tensors;
  std::map<std::string, double> worst = {};
  bool failed = false;

  bool has(const std::string& key) const { return tensors.count(key) > 0; }
  Tensor at(const std::string& key) const {
    const auto found = tensors.find(key);
    DEQ_CHECK(found != tensors.end(), "{}: tensor '{}' is missing", name, key);
    return found->second.to(at::kDouble);
  }
  void see(const std::string& what, double error, double tolerance) {
    double& own = worst[what];
    if (!(error <= own)) own = error;
    failed |= !(error <= tolerance);
  }
  void compare(const std::string& what, const Tensor& ours, const Tensor& theirs,
               double tolerance) {
    if (theirs.numel() == 0) return;
    const Tensor got = ours.detach().view_as(theirs);
    // Some are 0 but for the reference's rounding.
    const double size = theirs.abs().max().item<double>();
    const double error = (got - theirs).abs().max().item<double>();
    see(what, size > 1e-12 ? error / size : error, tolerance);
  }
  void expect(bool holds, const std::string& what) { see(what, holds ? 0 : 1, 0); }
};

bool ill_scaled(const Case& c) { return c.name.find("ill_scaled") != std::string::npos; }

/// The program in `prefix`, in which what is wanted needs gradients.
QuadraticProgram program_of(const Case& c, const std::string& prefix, bool gradients) {
  const auto get = [&](const char* name) {
    const std::string key = prefix + name;
    if (!c.has(key)) return Tensor();
    return c.at(key).clone().requires_grad_(gradients);
  };
  return {get("Q"), get("q"), get("A"), get("b"), get("G"), get("h")};
}

std::vector<std::pair<std::string, Tensor>> leaves(const QuadraticProgram& p) {
  std::vector<std::pair<std::string, Tensor>> found;
  for (const auto& [name, t] : {std::pair{"Q", p.Q}, std::pair{"q", p.q}, std::pair{"A", p.A},
                                std::pair{"b", p.b}, std::pair{"G", p.G}, std::pair{"h", p.h}})
    if (t.defined() && t.numel() > 0 && t.requires_grad()) found.emplace_back(name, t);
  return found;
}

std::map<std::string, Tensor> gradients(const Case& c, const QuadraticProgram& p,
                                        const Optimum& found) {
  Tensor loss = (found.z * c.at("in.grad_z")).sum();
  if (c.has("in.grad_nu")) loss = loss + (found.nu * c.at("in.grad_nu")).sum();
  if (c.has("in.grad_lam")) loss = loss + (found.lam * c.at("in.grad_lam")).sum();
  std::vector<Tensor> inputs;
  const auto named = leaves(p);
  for (const auto& leaf : named) inputs.push_back(leaf.second);
  const auto all = torch::autograd::grad({loss}, inputs, {}, {}, false, true);
  std::map<std::string, Tensor> result;
  for (size_t i = 0; i < named.size(); ++i) result[named[i].first] = all[i];
  return result;
}

const MinimiseOptions kExact{.stop = {.max_steps = 100, .rel_tol = 1e-10}};

void check_program(Case& c) {
  const double value = ill_scaled(c) ? 1e-8 : 1e-10, gradient = ill_scaled(c) ? 1e-6 : 1e-8;
  const QuadraticProgram p = program_of(c, "in.", true);
  MinimiseOptions options = kExact;
  Tensor active;
  for (const bool warm : {false, true}) {
    options.warm = warm ? &active : nullptr;
    const Optimum found = minimise(p, options);
    c.expect(found.report.converged(), "converged");
    c.see("residual", found.report.worst_residual(), 1e-10);
    c.compare("z", found.z, c.at("out.z"), value);
    if (c.has("out.nu")) c.compare("nu", found.nu, c.at("out.nu"), value);
    if (c.has("out.lam")) c.compare("lam", found.lam, c.at("out.lam"), value);
    if (c.has("out.active"))
      c.expect(at::equal(found.active, c.at("out.active").to(at::kBool)), "active");
    for (const auto& [name, own] : gradients(c, p, found)) {
      const std::string key = "out.grad." + name;
      if (c.has(key) && own.sizes() == c.at(key).sizes())
        c.compare("d" + name, own, c.at(key), gradient);
    }
    if (warm) c.expect(found.report.steps.max().item<int64_t>() == 0, "warm");
    active = found.active;
  }
}

void check_total_variation(Case& c) {
  check_program(c);
  const QuadraticProgram p = program_of(c, "in.", true);
  const Tensor dq = gradients(c, p, minimise(p, kExact)).at("q");
  const int64_t signal = c.at("in.signal").numel();
  c.compare("dq", dq.narrow(-1, 0, signal), c.at("out.grad.q"), 1e-8);
  c.compare("dweight", dq.narrow(-1, signal, dq.size(-1) - signal).sum(), c.at("out.grad.weight"),
            1e-8);
}

/// The Sudoku rules: all that is not given follows from A.
QuadraticProgram sudoku_rules(const Case& c) {
  const Tensor A = c.at("in.A");
  const int64_t n = A.size(1);
  const auto eye = at::eye(n, at::kDouble);
  return {0.1 * eye, c.at("in.q").clone().requires_grad_(),
          A,         at::ones({A.size(0)}, at::kDouble),
          -eye,      at::zeros({n}, at::kDouble)};
}

void check_degenerate(Case& c) {
  const QuadraticProgram p = c.has("in.Q") ? program_of(c, "in.", true) : sudoku_rules(c);
  for (const Degenerate& how : {Degenerate::LeastNorm, Degenerate::Active, Degenerate::Inactive}) {
    MinimiseOptions options = kExact;
    options.degenerate = how;
    const Optimum found = minimise(p, options);
    c.expect(found.report.converged(), "converged");
    c.compare("z", found.z, c.at("out.z"), 1e-10);
    if (c.has("out.lam")) {
      c.see("lam", (found.lam - c.at("out.lam")).abs().max().item<double>(), 1e-9);
    }
    const auto all = gradients(c, p, found);
    const bool inactive = how.kind == Degenerate::Kind::Inactive;
    const std::string one_sided = inactive ? "out.grad.q.inactive" : "out.grad.q.active";
    if (c.has(one_sided)) {
      c.compare("dq", all.at("q"), c.at(one_sided), 1e-8);
      c.expect(found.weak.item<int64_t>() == 1, "weak");
    }
    for (const char* name : {"q", "Q"}) {
      const std::string key = fmt::format("out.grad.{}", name);
      if (c.has(key)) c.compare(fmt::format("d{}", name), all.at(name), c.at(key), 1e-8);
    }
    if (c.has("out.lam_sum_rows_0_1")) {
      const Tensor dh = all.at("h");
      c.compare("lam_sum", found.lam.narrow(1, 0, 2).sum(), c.at("out.lam_sum_rows_0_1"), 1e-10);
      c.compare("lam_share", found.lam[0][0] - found.lam[0][1], at::zeros({}, at::kDouble), 1e-9);
      c.compare("dh_sum", dh.narrow(1, 0, 2).sum(), c.at("out.grad.h_sum_rows_0_1"), 1e-8);
      c.compare("dh", dh.narrow(1, 2, dh.size(1) - 2), c.at("out.grad.h_rows_2_on"), 1e-8);
    }
  }
}

void check_published(Case& c) {
  for (size_t i = 0; i < c.config.at("cases").size(); ++i) {
    const Json& own = c.config.at("cases")[i];
    const QuadraticProgram p = program_of(c, fmt::format("in.{}.", i), false);
    const Optimum found = minimise(p, kExact);
    const std::string out = fmt::format("out.{}.", i);
    c.expect(found.report.converged(), "converged");
    c.see("z",
          (found.z - c.at(out + "z")).abs().max().item<double>() /
              std::max(1.0, c.at(out + "z").abs().max().item<double>()),
          1e-10);
    const double objective =
        (0.5 * found.z.dot(p.Q.mv(found.z)) + p.q.dot(found.z)).item<double>() +
        own.at("constant").get<double>();
    c.see("published", std::abs(objective - own.at("published").get<double>()), 2e-7);
  }
}

/// What a certificate must be is multiplied out.
void check_certificate(Case& c, const QuadraticProgram& p, const Optimum& found) {
  const Tensor all = found.certificate[0];
  const int64_t n = p.q.numel(), equal = p.A.defined() ? p.A.size(0) : 0,
                less = p.G.defined() ? p.G.size(0) : 0;
  const auto none = [](const Tensor& x) {
    return x.numel() == 0 || x.abs().max().item<double>() <= 1e-9;
  };
  const Tensor d = all.narrow(0, 0, n);
  switch (Reason(found.report.reason.item<uint8_t>())) {
    case Reason::Infeasible: {
      const Tensor nu = all.narrow(0, 0, equal), lam = all.narrow(0, equal, less);
      Tensor sum = at::zeros({n}, at::kDouble);
      double value = 0;
      if (equal > 0) sum = sum + p.A.t().mv(nu), value += p.b.dot(nu).item<double>();
      if (less > 0) sum = sum + p.G.t().mv(lam), value += p.h.dot(lam).item<double>();
      c.expect(none(sum) && value < 0 && (less == 0 || lam.min().item<double>() >= 0), "farkas");
      return;
    }
    case Reason::Unbounded:
      c.expect(none(p.Q.mv(d)) && p.q.dot(d).item<double>() < 0 &&
                   (less == 0 || p.G.mv(d).max().item<double>() <= 1e-9),
               "ray");
      return;
    case Reason::NotConvex:
      c.expect(d.dot(p.Q.mv(d)).item<double>() < 0, "curvature");
      return;
    default:
      c.expect(none(all), "no certificate");
  }
}

void check_status(Case& c) {
  using R = Reason;
  const std::map<std::string, std::vector<Reason>> wanted{
      {"infeasible box", {R::Infeasible}},
      {"inconsistent equalities", {R::Infeasible}},
      {"infeasible by 1e-9", {R::Infeasible, R::Converged}},
      {"unbounded below", {R::Unbounded}},
      {"indefinite Q", {R::NotConvex}},
      {"indefinite Q, convex on the equalities", {R::NotConvex}},
      {"NaN in q", {R::NonFinite}},
      {"infinite h", {R::Converged}},
      {"zero row, feasible", {R::Converged}},
      {"zero row, infeasible", {R::Infeasible}},
      {"asymmetric Q", {R::Converged}},
      {"non-unique solution", {R::NotUnique}}};
  const std::map<std::string, std::vector<double>> solutions{{"infinite h", {1, 0}},
                                                             {"zero row, feasible", {1, 1}},
                                                             {"asymmetric Q", {1, 0}},
                                                             {"non-unique solution", {1, 0}}};
  for (size_t i = 0; i < c.config.at("cases").size(); ++i) {
    const std::string name = c.config.at("cases")[i].at("name");
    const QuadraticProgram p = program_of(c, fmt::format("in.{}.", i), true);
    const Optimum found = minimise(p, kExact);
    const Reason reason = Reason(found.report.reason.item<uint8_t>());
    const auto expected = wanted.find(name);
    if (expected == wanted.end()) {
      c.expect(false, "known: " + name);
      continue;
    }
    c.expect(std::ranges::count(expected->second, reason) > 0,
             fmt::format("{} is {}", name, int(reason)));
    c.expect(found.z.isfinite().all().item<bool>(), name + ": finite");
    const auto solution = solutions.find(name);
    if (solution != solutions.end())
      c.compare(name + ": z", found.z, at::tensor(solution->second, at::kDouble), 1e-10);
    if (reason != R::NonFinite) check_certificate(c, p, found);
    if (reason == R::Converged) continue;
    const auto dq =
        torch::autograd::grad({found.z.sum() + found.lam.sum()}, {p.q}, {}, {}, false, true)[0];
    c.expect(!dq.defined() || dq.eq(0).all().item<bool>(), name + ": gradient");
  }
}

const std::map<std::string, void (*)(Case&)>& checks() {
  static const std::map<std::string, void (*)(Case&)> all{
      {"qp", check_program},
      {"qp-total-variation", check_total_variation},
      {"qp-degenerate", check_degenerate},
      {"qp-published", check_published},
      {"qp-status", check_status}};
  return all;
}

/// JSON has no infinity.
std::string plain(std::string json) {
  for (size_t at; (at = json.find("Infinity")) != std::string::npos;) json.replace(at, 8, "null");
  return json;
}

bool report(const Case& c) {
  fmt::print("{} {}", c.failed ? "FAILED" : "ok    ", c.name);
  for (const auto& [what, error] : c.worst)
    if (c.failed || error > 0) fmt::print("  {} {:.1e}", what, error);
  fmt::print("\n");
  return !c.failed;
}

}  // namespace

bool is_quadratic_program(const std::string& kind) { return checks().count(kind) > 0; }

bool check_quadratic_program(const std::filesystem::path& path) {
  TensorFile file = load_tensors(path);
  Case c{path.filename().string(), Json::parse(plain(file.metadata["config"])),
         std::move(file.tensors)};
  checks().at(file.metadata["kind"])(c);
  return report(c);
}

}  // namespace deq::testing
