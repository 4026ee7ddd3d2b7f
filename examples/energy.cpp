// The minimum of an energy as a layer: a chain of springs hangs between two nails, and its weight
// is learned from where it came to rest. Prints the loss and what was found.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include "deq/deq.h"

namespace {

/// E of chains z (B, n), heights of n beads: springs that grow stiffer, and gravity.
deq::EnergyOf chain(const at::Tensor& stiffness, const at::Tensor& weight) {
  return [=](const at::Tensor& z) {
    const at::Tensor nails = at::zeros({z.size(0), 1}, z.options());
    const at::Tensor stretch = at::cat({nails, z, nails}, 1).diff();
    const at::Tensor springs = stiffness * (0.5 * stretch.square() + 0.25 * stretch.pow(4));
    return springs.sum(1) + (weight * z).sum(1);
  };
}

}  // namespace

int main() {
  const auto numbers = at::TensorOptions(at::kDouble);
  const at::Tensor start = at::zeros({1, 10}, numbers);
  const at::Tensor seen =
      deq::minimise_energy(chain(at::full({}, 2.0, numbers), at::full({}, 0.3, numbers)), start).z;

  // Twice the weight on springs twice as stiff hangs alike: the stiffness is known to be 2.
  at::Tensor weight = at::full({}, 0.1, numbers).requires_grad_(true);
  for (int step = 0; step <= 20; ++step) {
    const deq::EnergyMinimum rest =
        deq::minimise_energy(chain(at::full({}, 2.0, numbers), weight), start);
    const at::Tensor loss = (rest.z - seen).square().sum();
    if (step % 5 == 0)
      fmt::print("step {:2}: loss {:.2e}, weight {:.4f}; {}\n", step, loss.item<double>(),
                 weight.item<double>(), deq::describe(rest.report));
    loss.backward();
    c10::NoGradGuard no_tape;
    weight.sub_(weight.grad(), 0.002);
    weight.mutable_grad() = at::Tensor();
  }
  return std::abs(weight.item<double>() - 0.3) < 1e-3 ? 0 : 1;
}
