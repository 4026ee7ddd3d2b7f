// An equilibrium layer around any f, in an ordinary LibTorch program: z* = tanh(z* W + x U),
// trained so that its mean over positions tells two kinds of sequences apart. Prints the loss and
// how each solve went.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include "deq/deq.h"

int main() {
  at::manual_seed(1);
  const int64_t B = 32, T = 6, X = 4, D = 16;
  const at::Tensor W = (at::randn({D, D}) * 0.15).requires_grad_(true);
  const at::Tensor U = (at::randn({X, D}) * 0.3).requires_grad_(true);
  const at::Tensor out = (at::randn({D, 1}) * 0.3).requires_grad_(true);

  const at::Tensor x = at::randn({B, T, X});
  const at::Tensor label = x.select(2, 0).sum(1).gt(0).to(at::kFloat);  // (B)

  deq::EquilibriumOptions options;
  options.solver = deq::Anderson{.memory = 5};
  options.stop = {.max_steps = 40, .rel_tol = 1e-5};

  for (int step = 0; step <= 200; ++step) {
    const at::Tensor injected = at::matmul(x, U);  // (B, T, D), once per solve
    const deq::Map f = [&](const at::Tensor& z) { return at::tanh(at::matmul(z, W) + injected); };
    const deq::Equilibrated found = deq::equilibrium(f, at::zeros({B, T, D}), options);
    const at::Tensor score = at::matmul(found.z.mean(1), out).squeeze(1);  // (B)
    const at::Tensor loss = at::binary_cross_entropy_with_logits(score, label);
    if (step % 50 == 0)
      fmt::print("step {:3}: loss {:.4f}; {}\n", step, loss.item<float>(),
                 deq::describe(found.report));

    for (const at::Tensor& weight : {W, U, out}) weight.mutable_grad() = at::Tensor();
    loss.backward();
    c10::NoGradGuard no_tape;
    for (at::Tensor weight : {W, U, out}) weight.sub_(weight.grad(), 0.5);
  }
}
