// f behind pasts that grow, against f whose past is laid out anew for every position.
#include "deq/ops/block_decoder.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "deq/base/error.h"
#include "tests/base/scratch.h"

namespace deq::ops {
namespace {

using at::Tensor;

struct Size {
  int64_t heads, width, inner, window, length;
};

class Decoding : public ::testing::TestWithParam<std::tuple<Size, at::ScalarType, NormPlace>> {
 protected:
  void SetUp() override {
    at::manual_seed(3);
    size = std::get<0>(GetParam());
    options = at::TensorOptions().dtype(std::get<1>(GetParam()));
    const int64_t D = size.width, I = size.inner;
    const auto random = [&](at::IntArrayRef shape) { return at::randn(shape, options) * 0.3; };
    weights = block_weights({.qkv = random({3 * D, D}),
                             .output = random({D, D}),
                             .output_bias = random({D}),
                             .inner = random({I, D}),
                             .inner_bias = random({I}),
                             .outer = random({D, I}),
                             .outer_bias = random({D})});
    r = random({256, D});
    content = random({D});
    position = random({D});
    view = {size.heads, true, size.window};
  }

  /// f of one position behind keys and values (M, D).
  Tensor alone(const Tensor& z, const Tensor& injected, const Tensor& k, const Tensor& v) {
    BlockContext c;
    c.norm = std::get<2>(GetParam());
    c.view = view;
    c.weights = weights;
    c.injected = injected.view({1, 1, -1});
    const int64_t M = k.size(0);
    if (M > 0) {
      c.attention.past_k = k.unsqueeze(0);
      c.attention.past_v = v.unsqueeze(0);
    }
    c.attention.r = r.narrow(0, r.size(0) - M - 1, M + 1);
    c.attention.content_bias = content;
    c.attention.position_bias = position;
    return TransformerBlock(c)(z.view({1, 1, -1})).view({-1});
  }

  Size size;
  at::TensorOptions options;
  BlockWeights weights;
  Tensor r, content, position;
  AttentionView view;
};

// Texts go on at different times, each through several rounds of its room.
TEST_P(Decoding, IsFBehindThePastThatEachTextHas) {
  c10::NoGradGuard no_tape;
  constexpr int64_t kTexts = 9;
  const int64_t D = size.width;
  BlockDecoder f(std::get<2>(GetParam()), view, weights, content, position, kTexts, size.length);
  f.set_positions(r);
  std::vector<Tensor> k, v, injected;  // of each text
  const auto enter = [&](int64_t text) {
    injected[size_t(text)] = at::randn({3 * D}, options);
    f.enter(text, injected[size_t(text)]);
  };
  for (int64_t text = 0; text < kTexts; ++text) {
    k.push_back(at::empty({0, D}, options));
    v.push_back(at::empty({0, D}, options));
    injected.emplace_back();
    enter(text);
  }
  const auto extended = [&](const Tensor& past, const Tensor& own) {
    const Tensor all = at::cat({past, own.unsqueeze(0)});
    const int64_t kept = std::min(size.length, all.size(0));
    return all.narrow(0, all.size(0) - kept, kept);
  };
  for (int64_t step = 0; step < 500; ++step) {
    const Tensor z = at::randn({kTexts, 1, D}, options);
    std::vector<int64_t> done(kTexts, 0);
    for (int64_t text = 0; text < kTexts; ++text) done[size_t(text)] = step % (text + 2) == 1;
    const Tensor fz = f(z, step % 7 == 0 ? std::vector<int64_t>() : done);
    for (int64_t text = 0; text < kTexts; ++text) {
      const auto i = size_t(text);
      if (done[i] && step % 7 != 0) continue;
      const bool shown = step % 37 == 0 || step > 490;
      if (shown) {
        EXPECT_TRUE(at::equal(fz[text][0], alone(z[text], injected[i], k[i], v[i])))
            << "step " << step << ", text " << text;
      }
      if (step % (text + 1) != 0) continue;
      if (text % 2 == 0 && std::get<2>(GetParam()) == NormPlace::Post) {
        EXPECT_FALSE(f.take(text, z[text][0] + 1));
        ASSERT_TRUE(f.take(text, z[text][0]));
        const Tensor kv = at::matmul(z[text][0], weights.qkv.t()).narrow(0, D, 2 * D) +
                          injected[i].narrow(0, D, 2 * D);
        const Tensor keys = f.past(text).keys()[0], values = f.past(text).values()[0];
        k[i] = keys;
        v[i] = values;
        if (size.length > 0) {
          EXPECT_TRUE(at::allclose(keys[-1], kv.narrow(0, 0, D), 1e-3, 1e-4));
          EXPECT_TRUE(at::allclose(values[-1], kv.narrow(0, D, D), 1e-3, 1e-4));
        }
      } else {
        const Tensor own_k = at::randn({D}, options), own_v = at::randn({D}, options);
        f.append(text, own_k, own_v);
        k[i] = extended(k[i], own_k);
        v[i] = extended(v[i], own_v);
      }
      enter(text);
    }
  }
  for (int64_t text = 0; text < kTexts; ++text) {
    EXPECT_TRUE(at::equal(f.past(text).keys()[0], k[size_t(text)]));
    EXPECT_TRUE(at::equal(f.past(text).values()[0], v[size_t(text)]));
    EXPECT_LE(f.past(text).panel() / 8, 8 * (size.length + 64));  // the room is bounded
  }
}

INSTANTIATE_TEST_SUITE_P(
    Sizes, Decoding,
    ::testing::Combine(::testing::Values(Size{3, 12, 20, 0, 40}, Size{2, 76, 30, 0, 150},
                                         Size{1, 6, 9, 5, 100}, Size{2, 8, 12, 0, 0},
                                         Size{2, 8, 12, 3, 1}),
                       ::testing::Values(at::kFloat, at::kDouble),
                       ::testing::Values(NormPlace::Post, NormPlace::Pre)));

TEST(BlockDecoder, RefusesWhatItHasNoKernelsFor) {
  BlockWeights plain;
  plain.output = at::zeros({4, 4});
  EXPECT_SAYS(
      testing::error_of([&] {
        BlockDecoder(NormPlace::Post, {2, true, 0}, plain, at::zeros({4}), at::zeros({4}), 1, 5);
      }),
      "weights without a layout");
}

}  // namespace
}  // namespace deq::ops
