#include "deq/heads/adaptive.h"

#include <gtest/gtest.h>
#include <torch/types.h>

#include <cmath>

namespace deq {
namespace {

using at::Tensor;

TEST(AdaptiveEmbedding, IsScaledByTheModelsWidthWhateverItsTables) {
  constexpr int64_t kVocabulary = 11, kModel = 8;
  for (const int64_t width : {0, 4, 16}) {
    for (const int64_t div_val : {1, 2}) {
      EmbeddingOptions options = {.width = width, .cutoffs = {5}, .div_val = div_val};
      const Clusters clusters(options, kVocabulary, kModel);
      AdaptiveEmbedding scaled(clusters, options);
      scaled.initialise(0.5);
      options.scaled = false;
      AdaptiveEmbedding plain(clusters, options);
      c10::NoGradGuard no_tape;
      const auto values = scaled.parameters();
      for (size_t i = 0; i < values.size(); ++i) plain.parameters()[i].copy_(values[i]);
      const Tensor tokens = at::arange(kVocabulary, at::kLong).unsqueeze(0);
      const Tensor expected = plain.forward(tokens) * std::sqrt(double(kModel));
      EXPECT_EQ(expected.size(2), kModel);
      EXPECT_GT(expected.abs().max().item<double>(), 0);
      EXPECT_TRUE(at::allclose(scaled.forward(tokens), expected, 1e-6, 1e-8));
    }
  }
}

}  // namespace
}  // namespace deq
