#include "deq/measure/gradients.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>

#include "deq/gradients/implicit.h"
#include "deq/gradients/phantom.h"
#include "deq/solvers/anderson.h"
#include "deq/train/evaluate.h"

namespace deq {
namespace {

using at::Tensor;

constexpr double kExact = 1e-6;

struct Mode {
  std::string name;
  Gradient gradient;
};

std::vector<Mode> modes(int64_t steps) {
  const Solver solver = Anderson{.memory = 12};
  const auto implicit = [&](int64_t max_steps, double rel_tol, int64_t shine) {
    return Implicit{solver, {.max_steps = max_steps, .rel_tol = rel_tol}, shine};
  };
  std::vector<Mode> all;
  for (const double tolerance : {1e-3, 1e-2, 1e-1})
    all.push_back({fmt::format("implicit to {:g}", tolerance), implicit(steps, tolerance, 0)});
  for (const int64_t few : {10, 5, 1}) {
    const char* plural = few == 1 ? "" : "s";
    all.push_back({fmt::format("implicit, {} step{}", few, plural), implicit(few, 0, 0)});
    for (const int64_t shine : {8, 20, 40})
      all.push_back({fmt::format("the same from {} of the forward solve's steps (SHINE)", shine),
                     implicit(few, 0, shine)});
  }
  for (const int64_t few : {10, 5, 2})
    all.push_back({fmt::format("phantom, {} steps", few), Phantom{.steps = few}});
  all.push_back({"phantom, 5 steps, damping 0.5", Phantom{.steps = 5, .damping = 0.5}});
  all.push_back({"one-step", OneStep{}});
  return all;
}

struct Sample {
  Model& model;
  KnownSegments known;
  EquilibriumOptions equilibrium;  // but for the gradient
};

struct Found {
  Tensor gradient;  // of all the cell's parameters, one after the other, in double
  Report adjoint;
  double seconds = 0;
};

Found gradient_of(const Sample& sample, const Gradient& mode) {
  c10::AutoGradMode tape(true);
  Found found;
  ForwardOptions how{.equilibrium = sample.equilibrium};
  how.equilibrium.gradient = mode;
  how.on_adjoint = [&](const Report& report) { found.adjoint = report; };
  const LayerOutput output = sample.model.forward(sample.known.tokens, sample.known.histories, how);
  const Tensor loss = sample.model.loss(output.z, sample.known.targets).mean();
  const std::vector<Tensor> parameters = sample.model.cell().parameters();
  std::vector<Tensor> gradients;
  found.seconds = seconds_of(
      [&] { gradients = torch::autograd::grad({loss}, parameters, {}, false, false, true); });
  std::vector<Tensor> parts;
  for (size_t i = 0; i < parameters.size(); ++i) {
    const Tensor g = gradients[i].defined() ? gradients[i] : at::zeros_like(parameters[i]);
    parts.push_back(g.reshape(-1).to(at::kDouble));
  }
  found.gradient = at::cat(parts);
  return found;
}

std::string products(const Gradient& mode, const Report& adjoint) {
  if (const auto* phantom = mode.get_if<Phantom>()) return fmt::format("{}", phantom->steps - 1);
  return fmt::format("{}", adjoint.evaluations);
}

}  // namespace

Measurement measure_gradients(const TrainedModel& run, const Split& split,
                              const GradientsOptions& options) {
  check_iterates(run);
  Model& model = *run.model;
  model.eval();
  Sample sample{model, {}, run.options.equilibrium};
  sample.equilibrium.gradient = Implicit{};  // of the history: every mode sees the same one
  sample.equilibrium.stop = {.max_steps = options.steps, .rel_tol = options.forward_tol};
  sample.known = first_segments(model, split, options.segments, run.options.eval.length,
                                {.equilibrium = sample.equilibrium});
  const Solver solver = Anderson{.memory = 20};
  gradient_of(sample, OneStep{});  // warms up
  const Found exact =
      gradient_of(sample, Implicit{solver, {.max_steps = options.steps, .rel_tol = kExact}});
  Measurement found;
  found.columns = {"gradient", "products", "adjoint's residual", "error", "cosine", "backward, ms"};
  const auto residual = [](const Report& adjoint) {
    return adjoint.residual.defined() ? fmt::format("{:.1e}", adjoint.mean_residual()) : "–";
  };
  const auto add = [&](const std::string& name, const Gradient& mode, const Found& mine) {
    const Tensor difference = mine.gradient - exact.gradient;
    const Tensor norm = exact.gradient.norm();
    found.rows.push_back(
        {name, products(mode, mine.adjoint), residual(mine.adjoint),
         fmt::format("{:.1e}", (difference.norm() / norm).item<double>()),
         fmt::format(
             "{:.4f}",
             (mine.gradient.dot(exact.gradient) / (norm * mine.gradient.norm())).item<double>()),
         fmt::format("{:.0f}", 1e3 * mine.seconds)});
  };
  const bool reached = exact.adjoint.converged();
  add(fmt::format("implicit to {:g}, the measure{}", kExact,
                  reached ? "" : fmt::format(" (not reached in {} steps)", options.steps)),
      Implicit{}, exact);
  for (const Mode& mode : modes(options.steps))
    add(mode.name, mode.gradient, gradient_of(sample, mode.gradient));
  return found;
}

}  // namespace deq
