// Parity learned from one bit of supervision (Wang, Donti, Wilder and Kolter 2019): a cell of three
// variables, z_3 = cell(z_1, z_2), is handed along the bits, and the loss sees its last output
// only. What a cell says is rounded before the next, so that the last cell alone is differentiated,
// and there is nothing to learn from until the others are right: where the error in the last ten of
// thirty batches is still that of guessing, new clauses are drawn.
//
//   parity [BITS TRAIN TEST SEED]         20 9000 1000 0 is the published size
//
// Prints a line an epoch; the exit code is 1 where 20 epochs leave errors.
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>

#include <ctime>
#include <random>

#include "deq/layers/maxsat.h"

namespace {

using at::Tensor;
constexpr int64_t kBatch = 100, kEpochs = 20, kTrial = 30, kJudged = 10;
constexpr double kRate = 0.05;

/// The share of ones after the chain over x (B, bits), (B); taped behind the last cell.
Tensor last_of_chain(const deq::Maxsat& cell, const Tensor& x, bool tape) {
  const deq::MaxsatSolve how{.stop = {.max_steps = 60, .rel_tol = 1e-3},
                             .adjoint = {.max_steps = 60, .rel_tol = 1e-2}};
  const Tensor known = at::tensor({1, 1, 0}, at::kByte);
  Tensor z = x.select(1, 0);
  for (int64_t i = 1; i < x.size(1); ++i) {
    const at::AutoGradMode taped(tape && i == x.size(1) - 1);
    const Tensor next = x.select(1, i);
    z = cell(at::stack({z.round(), next, at::zeros_like(next)}, 1), known, how).z.select(1, 2);
  }
  return z;
}

double error_of(const Tensor& z, const Tensor& parity) {
  return z.detach().round().ne(parity).to(at::kDouble).mean().item<double>();
}

/// A cell, and what of its training is remembered.
struct Learner {
  deq::MaxsatOptions sizes;
  deq::Maxsat cell{sizes};
  int64_t batches = 0, drawn = 1;
  double late = 0;  // the error in the last kJudged of kTrial batches

  /// One epoch of gradient descent.
  void train(const Tensor& x, const Tensor& parity) {
    for (int64_t from = 0; from + kBatch <= x.size(0); from += kBatch) {
      step(x.narrow(0, from, kBatch), parity.narrow(0, from, kBatch));
      if (++batches % kTrial != 0) continue;
      if (late > 0.4 && late < 0.6)
        cell = deq::Maxsat({3, 4, 4, 0, sizes.seed + uint64_t(drawn++)});
      late = 0;
    }
  }

  void step(const Tensor& bits, const Tensor& parity) {
    const Tensor z = last_of_chain(cell, bits, true);
    if (batches % kTrial >= kTrial - kJudged) late += error_of(z, parity) / double(kJudged);
    const Tensor loss = at::binary_cross_entropy(z.clamp(1e-6, 1 - 1e-6), parity);
    const Tensor gradient = torch::autograd::grad({loss}, {cell.S()})[0];
    const at::NoGradGuard no_tape;
    Tensor S = cell.S();
    S.sub_(gradient, kRate);
  }
};

}  // namespace

int main(int argc, char** argv) {
  const auto given = [&](int k, int64_t otherwise) {
    return argc > k ? std::stoll(argv[k]) : otherwise;
  };
  const int64_t bits = given(1, 8), count = given(2, 3000), test = given(3, 500);
  const uint64_t seed = uint64_t(given(4, 0));
  std::mt19937_64 random(seed);
  const Tensor x = at::empty({count + test, bits});
  for (int64_t i = 0; i < x.numel(); ++i) x.data_ptr<float>()[i] = float(random() >> 63);
  const Tensor parity = at::remainder(x.sum(1), 2);

  Learner learner{{.variables = 3, .auxiliary = 4, .clauses = 4, .seed = 1000 * seed}};
  for (int64_t epoch = 1; epoch <= kEpochs; ++epoch) {
    const std::clock_t begin = std::clock();
    learner.train(x.narrow(0, 0, count), parity.narrow(0, 0, count));
    const double seconds = double(std::clock() - begin) / CLOCKS_PER_SEC;
    const double wrong = error_of(last_of_chain(learner.cell, x.narrow(0, count, test), false),
                                  parity.narrow(0, count, test));
    fmt::print("seed {} epoch {}: clauses drawn {} times, test error {:.4f} of {}, {:.2f} s\n",
               seed, epoch, learner.drawn, wrong, test, seconds);
    if (wrong == 0) return 0;
  }
  return 1;
}
