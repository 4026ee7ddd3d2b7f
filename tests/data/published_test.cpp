// The published counts, on the files themselves: DEQ_DATA_DIR names a folder with ptb/ and
// wikitext-2/.
#include <gtest/gtest.h>

#include <cstdlib>

#include "deq/data/entropy.h"
#include "deq/tasks/characters.h"
#include "deq/tasks/tasks.h"
#include "deq/tasks/words.h"

namespace deq {
namespace {

struct Published {
  const char* folder;
  int64_t train, valid, test, words;
};

class PublishedCounts : public testing::TestWithParam<Published> {};

TEST_P(PublishedCounts, OfWords) {
  const char* data = std::getenv("DEQ_DATA_DIR");
  if (!data) GTEST_SKIP() << "DEQ_DATA_DIR is not set";
  const Published& expected = GetParam();
  const Corpus corpus = Words().load(std::filesystem::path(data) / expected.folder);
  EXPECT_EQ(corpus.train.tokens.numel(), expected.train);
  EXPECT_EQ(corpus.valid.tokens.numel(), expected.valid);
  EXPECT_EQ(corpus.test.tokens.numel(), expected.test);
  ASSERT_EQ(corpus.vocabulary.size(), expected.words);
  // Ids fall in frequency, as an adaptive softmax needs.
  const at::Tensor counts = at::bincount(corpus.train.tokens);
  ASSERT_EQ(counts.numel(), expected.words);
  EXPECT_TRUE((counts.slice(0, 1) <= counts.slice(0, 0, -1)).all().item<bool>());
  EXPECT_GT(counts.min().item<int64_t>(), 0);
  // A model must beat this: about 9.3 bits on PTB, and less than log2(words) anywhere.
  const double bits =
      unigram_bits(corpus.train.tokens, corpus.test.tokens, corpus.vocabulary.size());
  EXPECT_GT(bits, 8.0);
  EXPECT_LT(bits, std::log2(double(expected.words)));
}

INSTANTIATE_TEST_SUITE_P(, PublishedCounts,
                         testing::Values(Published{"ptb", 929589, 73760, 82430, 10000},
                                         Published{"wikitext-2", 2088628, 217646, 245569, 33278}),
                         [](const auto& info) {
                           return std::string(info.param.folder) == "ptb" ? "PennTreebank"
                                                                          : "WikiText2";
                         });

TEST(PublishedCharacters, OfTinyShakespeare) {
  const char* data = std::getenv("DEQ_DATA_DIR");
  if (!data) GTEST_SKIP() << "DEQ_DATA_DIR is not set";
  const auto file = std::filesystem::path(data) / "tinyshakespeare" / "input.txt";
  const Corpus corpus = Characters().load(file);
  EXPECT_EQ(corpus.vocabulary.size(), 65);
  EXPECT_EQ(corpus.train.tokens.numel(), 1003854);
  EXPECT_EQ(corpus.valid.tokens.numel(), 55770);
  EXPECT_EQ(corpus.test.tokens.numel(), 55770);
}

}  // namespace
}  // namespace deq
