// What one evaluation of f costs in decoding, by the number of texts side by side.
//   decoding_table [WIDTH HEADS INNER PAST]
// Random weights, one thread; by default models/shakespeare's sizes. Prints the shortest of 3,000
// evaluations in microseconds, with so many positions in sight of each text and with none.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <limits>

#include "deq/ops/block_decoder.h"

namespace {

using at::Tensor;
using deq::ops::BlockDecoder;

Tensor random(at::IntArrayRef sizes) { return 0.1 * at::randn(sizes); }

double microseconds(BlockDecoder& f, const Tensor& z) {
  double shortest = std::numeric_limits<double>::infinity();
  for (int run = 0; run < 3000; ++run) {
    const auto start = std::chrono::steady_clock::now();
    f(z, {});
    const std::chrono::duration<double, std::micro> taken =
        std::chrono::steady_clock::now() - start;
    shortest = std::min(shortest, taken.count());
  }
  return shortest;
}

}  // namespace

int main(int argc, char** argv) {
  std::array<int64_t, 4> sizes{192, 6, 768, 191};
  for (int i = 1; i < argc && i <= 4; ++i) sizes[size_t(i - 1)] = std::atoll(argv[i]);
  const auto [D, heads, I, past] = sizes;
  at::set_num_threads(1);
  c10::NoGradGuard no_tape;
  const deq::ops::BlockWeights weights = deq::ops::block_weights({.qkv = random({3 * D, D}),
                                                                  .output = random({D, D}),
                                                                  .output_bias = random({D}),
                                                                  .inner = random({I, D}),
                                                                  .inner_bias = random({I}),
                                                                  .outer = random({D, I}),
                                                                  .outer_bias = random({D})});
  for (const int64_t texts : {1, 4, 16, 48}) {
    const auto cost = [&, heads = heads, D = D](int64_t length) {
      BlockDecoder f(deq::ops::NormPlace::Post, {heads, true, 0}, weights, random({D}), random({D}),
                     texts, length);
      f.set_positions(random({length + 1, D}));
      for (int64_t text = 0; text < texts; ++text) {
        f.enter(text, random({3 * D}));
        for (int64_t i = 0; i < length; ++i) f.append(text, random({D}), random({D}));
      }
      return microseconds(f, random({texts, 1, D}));
    };
    fmt::print("{} texts: {:.1f} us, without a past {:.1f} us\n", texts, cost(past), cost(0));
  }
}
