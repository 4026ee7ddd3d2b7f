// Total-variation denoising whose differences are learned (Amos and Kolter 2017, section 4.2):
//
//   y = argmin 1/2 |y - x|^2 + sum_i w_i |(D y)_i| = x - D'u,
//   u = argmin 1/2 |D'u|^2 - x'D'u   where   |u_i| <= w_i
//
// D (99, 100) begins as the differences of neighbours, w as 21: total variation. Signals are
// theirs: 100 samples, 1 to 9 pieces of heights 10 to 99, noise of 10 in each sample.
//
//   denoising [TRAIN TEST EPOCHS SEED]         9000 1000 40 0 is the published size
// Prints the mean squared error on the test signals, at the start and after each epoch.
#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <ctime>
#include <random>

#include "deq/layers/quadratic_program.h"
#include "deq/train/optimizer.h"

namespace {

using at::Tensor;
constexpr int64_t kSamples = 100, kBatch = 150;

/// Noisy and clean, (count, 100) each.
std::pair<Tensor, Tensor> make_signals(int64_t count, std::mt19937_64& random) {
  const auto below = [&](int64_t n) { return int64_t(random() % uint64_t(n)); };
  std::normal_distribution<double> noise(0, 10);
  const Tensor x = at::empty({count, kSamples}, at::kDouble), y = at::empty_like(x);
  for (int64_t s = 0; s < count; ++s) {
    std::vector<bool> begins(kSamples, false);
    begins[0] = true;
    for (int64_t left = below(9); left > 0;) {
      const size_t at = size_t(1 + below(kSamples - 2));
      left -= !begins[at];
      begins[at] = true;
    }
    double height = 0;
    for (int64_t t = 0; t < kSamples; ++t) {
      if (begins[size_t(t)]) height = double(10 + below(90));
      y.data_ptr<double>()[s * kSamples + t] = height;
      x.data_ptr<double>()[s * kSamples + t] = height + noise(random);
    }
  }
  return {x, y};
}

struct Denoiser {
  Tensor D = at::diff(at::eye(kSamples, at::kDouble), 1, 0);
  Tensor log_w = at::full({kSamples - 1}, 21.0, at::kDouble).log();

  Tensor operator()(const Tensor& x) const {
    const Tensor eye = at::eye(kSamples - 1, at::kDouble), w = log_w.exp();
    const deq::Optimum u = deq::minimise({.Q = at::mm(D, D.t()),
                                          .q = -at::mm(x, D.t()),
                                          .G = at::cat({eye, -eye}),
                                          .h = at::cat({w, w})});
    return x - at::mm(u.z, D);
  }
};

double error_on(const Denoiser& denoise, const Tensor& x, const Tensor& y) {
  const c10::AutoGradMode no_tape(false);
  return (denoise(x) - y).square().mean().item<double>();
}

}  // namespace

int main(int argc, char** argv) {
  const auto given = [&](int k, int64_t other) { return argc > k ? std::stoll(argv[k]) : other; };
  const int64_t train = given(1, 300), test = given(2, 100), epochs = given(3, 2);
  std::mt19937_64 random{uint64_t(given(4, 0))};
  at::manual_seed(uint64_t(given(4, 0)));
  const auto [x, y] = make_signals(train + test, random);
  Denoiser denoise;
  deq::NamedTensors learned{{"D", denoise.D.set_requires_grad(true)},
                            {"log_w", denoise.log_w.set_requires_grad(true)}};
  deq::Descent descent(deq::Adam{}, learned);
  const Tensor test_x = x.narrow(0, train, test), test_y = y.narrow(0, train, test);
  const double before = error_on(denoise, test_x, test_y);
  fmt::print("total variation: {:.3f}\n", before);
  const std::clock_t begin = std::clock();
  double after = before;
  for (int64_t epoch = 0; epoch < epochs; ++epoch) {
    const double rate = 0.01 * (1 - double(epoch) / double(epochs));
    const Tensor order = at::randperm(train);
    for (int64_t from = 0; from + kBatch <= train; from += kBatch) {
      const Tensor rows = order.narrow(0, from, kBatch);
      descent.zero_gradients();
      (denoise(x.index_select(0, rows)) - y.index_select(0, rows)).square().mean().backward();
      descent.step(rate);
    }
    after = error_on(denoise, test_x, test_y);
    fmt::print("epoch {}: {:.3f}, {:.0f} s\n", epoch + 1, after,
               double(std::clock() - begin) / CLOCKS_PER_SEC);
    std::fflush(stdout);
  }
  return after < before ? 0 : 1;
}
