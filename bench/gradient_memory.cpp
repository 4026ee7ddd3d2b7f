// Peak memory of one training step of the equilibrium layer for each gradient mode, at 5, 50 and
// 500 steps.
//   gradient_memory [WIDTH LENGTH BATCH]
// Each measurement is a process of its own: the resident set's high-water mark over that of the
// same step with one evaluation only. Prints one JSON object per mode: megabytes by the number of
// steps.
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "deq/cells/transformer.h"
#include "deq/models/equilibrium.h"

namespace {

struct Size {
  int64_t width, length, batch;
};

/// The high-water mark of this process in megabytes.
double peak_megabytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return double(usage.ru_maxrss) / 1024;
}

/// A step with exactly `steps` evaluations forward and, for the adjoint, backward.
void one_step(const Size& size, const deq::Gradient& gradient, int64_t steps) {
  at::manual_seed(1);
  deq::TransformerCell cell({.width = size.width, .heads = 4, .inner = 4 * size.width});
  cell.initialise(0.1);
  const at::Tensor x = at::randn({size.batch, size.length, size.width});
  deq::EquilibriumOptions options;
  options.solver = deq::Anderson{.scope = deq::Scope::Causal};
  options.stop = {.max_steps = steps, .rel_tol = 0};
  options.gradient = gradient;
  const at::Tensor z = deq::equilibrium(cell.bind(x, {}).f, at::zeros_like(x), options);
  z.square().mean().backward();
}

double measure(const Size& size, const deq::Gradient& gradient, int64_t steps) {
  int ends[2];
  if (pipe(ends) != 0) return -1;
  const pid_t child = fork();
  if (child == 0) {
    one_step(size, gradient, steps);
    const double peak = peak_megabytes();
    if (write(ends[1], &peak, sizeof peak) != sizeof peak) _exit(1);
    _exit(0);
  }
  close(ends[1]);
  double peak = -1;
  if (read(ends[0], &peak, sizeof peak) != sizeof peak) peak = -1;
  close(ends[0]);
  waitpid(child, nullptr, 0);
  return peak;
}

std::vector<std::pair<std::string, deq::Gradient>> modes(int64_t steps) {
  return {{"implicit", deq::Implicit{.stop = {.max_steps = steps, .rel_tol = 0}}},
          {"phantom 5", deq::Phantom{.steps = 5}},
          {"one-step", deq::OneStep{}},
          {"unrolled", deq::Unrolled{.steps = steps}},
          {"checkpointed", deq::Checkpointed{.steps = steps}}};
}

}  // namespace

int main(int argc, char** argv) {
  Size size{128, 64, 8};
  if (argc == 4) size = {std::stoll(argv[1]), std::stoll(argv[2]), std::stoll(argv[3])};
  const double base = measure(size, deq::Unrolled{.steps = 1}, 1);
  for (size_t mode = 0; mode < modes(1).size(); ++mode) {
    nlohmann::ordered_json row{{"gradient", modes(1)[mode].first}};
    for (const int64_t steps : {5, 50, 500}) {
      const auto [name, gradient] = modes(steps)[mode];
      row[fmt::format("{} steps", steps)] = std::round(measure(size, gradient, steps) - base);
    }
    fmt::print("{}\n", row.dump());
  }
}
