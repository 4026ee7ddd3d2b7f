#include "deq/layers/energy.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <limits>

#include "deq/base/error.h"

namespace deq {

using at::Tensor;

namespace {

/// A sample whose energy is not finite has no minimum, whatever its gradient is.
void report_energies(Report& report, const Tensor& energy) {
  const Tensor lost = energy.isfinite().logical_not().cpu();
  if (report.reason.numel() != lost.numel() || !lost.any().item<bool>()) return;
  report.reason = report.reason.masked_fill(lost, int64_t(Reason::NonFinite));
  report.residual = report.residual.masked_fill(lost, std::numeric_limits<double>::infinity());
}

}  // namespace

EnergyMinimum minimise_energy(const EnergyOf& energy, const Tensor& z0,
                              const EnergyOptions& options) {
  validate(options, "EnergyOptions");
  DEQ_CHECK(z0.defined() && z0.is_floating_point() && z0.dim() >= 1,
            "minimise_energy: z0 is {}; expected floating-point numbers (B, ...)",
            !z0.defined() ? "undefined"
                          : fmt::format("{} [{}]", c10::toString(z0.scalar_type()),
                                        fmt::join(z0.sizes(), ", ")));
  // One more dimension keeps (B) and (B, D) a batch.
  const std::vector<int64_t> shape = z0.sizes().vec();
  const Tensor start = z0.detach().reshape({z0.size(0), 1, -1});
  const Map f = ops::gradient_step(energy, at::full({}, options.step, start.options()), shape);
  Equilibrated found = equilibrium(f, start, {options.solver, options.stop, options.gradient});
  EnergyMinimum minimum;
  {
    const c10::AutoGradMode no_tape(false);
    minimum.energy = energy(found.z.detach().view(shape));
  }
  minimum.report = std::move(found.report);
  report_energies(minimum.report, minimum.energy);
  minimum.z = marked(found.z, minimum.report).view(shape);
  minimum.latest_adjoint = std::move(found.latest_adjoint);
  return minimum;
}

EnergyOf hopfield_energy(const Tensor& patterns, double beta) {
  DEQ_CHECK(patterns.dim() == 2 && patterns.size(0) >= 1 && beta > 0,
            "hopfield_energy: patterns [{}] and beta = {}; expected (K, D) and beta > 0",
            fmt::join(patterns.sizes(), ", "), beta);
  return [patterns, beta](const Tensor& z) {
    DEQ_CHECK(z.dim() >= 2 && z.size(-1) == patterns.size(1),
              "hopfield_energy: z [{}]; expected (B, ..., {})", fmt::join(z.sizes(), ", "),
              patterns.size(1));
    const Tensor scores = beta * at::matmul(z, patterns.t());
    const Tensor of_places = 0.5 * z.square().sum(-1) - scores.logsumexp({-1}) / beta;
    return of_places.view({z.size(0), -1}).sum(1);
  };
}

}  // namespace deq
