#include "tests/oracle/maxsat_cases.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>

#include "deq/files/safetensors.h"
#include "deq/layers/maxsat.h"

namespace deq::testing {
namespace {

using at::Tensor;
constexpr double kValues = 1e-10, kGradients = 1e-8;  // of each tensor's largest entry
constexpr double kFloats = 2e-5;                      // the same, computed in float

const MaxsatSolve kExact{.stop = {.max_steps = 200000, .rel_tol = 1e-14},
                         .adjoint = {.max_steps = 20000, .rel_tol = 1e-14}};

double apart(const Tensor& ours, const Tensor& theirs) {
  const double size = std::max(1e-300, theirs.abs().max().item<double>());
  return (ours - theirs).abs().max().item<double>() / size;
}

class Findings {
 public:
  explicit Findings(const TensorFile& file) : file_(file) {}

  /// Against the case's tensor of that name, where it has one.
  void compare(const std::string& name, const Tensor& ours, double tolerance,
               const char* how = "") {
    const auto theirs = file_.tensors.find(name);
    if (theirs != file_.tensors.end()) note(name + how, apart(ours, theirs->second), tolerance);
  }
  void note(const std::string& name, double error, double tolerance) {
    if (!(error <= tolerance)) failed_ = true;
    text_ += fmt::format("  {} {:.1e}", name, error);
  }
  bool print(const std::string& name) const {
    fmt::print("{} {}{}\n", failed_ ? "FAILED" : "ok    ", name, text_);
    return !failed_;
  }

 private:
  const TensorFile& file_;
  std::string text_;
  bool failed_ = false;
};

/// Rows of signed variable numbers, 0 behind them, as DIMACS's text.
std::string dimacs_of(const Tensor& clauses, int64_t variables) {
  std::string text = fmt::format("p cnf {} {}\n", variables, clauses.size(0));
  for (int64_t j = 0; j < clauses.size(0); ++j) {
    for (int64_t x = 0; x < clauses.size(1); ++x) {
      if (const int64_t literal = clauses[j][x].item<int64_t>())
        text += fmt::format("{} ", literal);
    }
    text += "0\n";
  }
  return text;
}

Maxsat layer_of(const TensorFile& file, const std::string& name, int64_t rank) {
  const int64_t n = tensor_of(file, "in.z", name).size(1);
  if (const auto clauses = file.tensors.find("in.clauses"); clauses != file.tensors.end())
    return Maxsat::from_clauses(dimacs_of(clauses->second, n), name);
  const Tensor& S = tensor_of(file, "in.S", name);
  return Maxsat(S, {.variables = n, .auxiliary = S.size(0) - 1 - n, .rank = rank});
}

/// Finite numbers, gradients of 0 but for the copies, and a reason other than Converged.
void check_degenerate(const Assignment& a, const Tensor& z, const Tensor& known,
                      const Maxsat& layer, Findings& found) {
  const auto gradients = torch::autograd::grad({a.z.sum()}, {z, layer.S()});
  found.note("not finite", double((~a.z.isfinite()).sum().item<int64_t>()), 0);
  found.note("converged", a.report.converged_share(), 0);
  found.note("grad.S", gradients[1].abs().max().item<double>(), 0);
  found.note("grad.z", (gradients[0] - known.to(z.scalar_type())).abs().max().item<double>(), 0);
}

/// The values and gradients once more, in float.
void check_floats(const TensorFile& file, const Maxsat& layer, const Tensor& z, const Tensor& known,
                  MaxsatSolve how, Findings& found) {
  if (how.directions.defined()) how.directions = how.directions.to(at::kFloat);
  how.stop = {.max_steps = 500, .rel_tol = 3e-8};
  how.adjoint = {.max_steps = 500, .rel_tol = 1e-6};
  const Tensor S = layer.S().detach().to(at::kFloat).requires_grad_();
  const Assignment a = layer.assign(S, z.detach().to(at::kFloat), known, how);
  found.compare("out.z", a.z.detach().to(at::kDouble), kFloats, " in float");
  const auto g = file.tensors.find("in.grad_z");
  if (g == file.tensors.end()) return;
  const Tensor loss = (a.z * g->second.to(at::kFloat)).sum();
  found.compare("out.grad.S", torch::autograd::grad({loss}, {S})[0].to(at::kDouble), kFloats,
                " in float");
}

}  // namespace

bool is_maxsat(const std::string& kind) { return kind.rfind("maxsat", 0) == 0; }

bool check_maxsat(const std::filesystem::path& path) {
  const TensorFile file = load_tensors(path);
  const std::string name = path.filename().string();
  Findings found(file);
  MaxsatSolve how = kExact;
  if (const auto u = file.tensors.find("in.directions"); u != file.tensors.end())
    how.directions = u->second;
  const Maxsat layer = layer_of(file, name, how.directions.defined() ? how.directions.size(2) : 0);
  const Tensor z = tensor_of(file, "in.z", name).clone().requires_grad_();
  const Tensor& known = tensor_of(file, "in.known", name);
  const Assignment a = layer(z, known, how);
  if (file.metadata.at("kind") == "maxsat-degenerate") {
    check_degenerate(a, z, known, layer, found);
    return found.print(name);
  }
  found.note("residual", a.report.worst_residual(), 1e-12);
  found.compare("out.z", a.z.detach(), kValues);
  found.compare("out.objective", a.objective, kValues);
  if (const auto g = file.tensors.find("in.grad_z"); g != file.tensors.end()) {
    const auto gradients = torch::autograd::grad({(a.z * g->second).sum()}, {z, layer.S()});
    found.note("adjoint", a.adjoint().worst_residual(), 1e-10);
    found.compare("out.grad.z", gradients[0] * known, kGradients);
    found.compare("out.grad.S", gradients[1], kGradients);
  }
  check_floats(file, layer, z, known, how, found);
  return found.print(name);
}

}  // namespace deq::testing
