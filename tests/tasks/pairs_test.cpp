// A user's own problems: the splits are as the files say, and every mistake in a file is one line
// that names it.
#include "deq/tasks/pairs.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "deq/tasks/tasks.h"
#include "tests/base/scratch.h"

namespace deq {
namespace {

using testing::error_of;
using testing::spill;

at::Tensor longs(const std::vector<int64_t>& values) { return at::tensor(values, at::kLong); }

/// A folder whose training file holds `train`; the others are good.
void write_folder(const testing::Scratch& scratch, const std::string& train) {
  spill(scratch / "train.tsv", train);
  spill(scratch / "valid.tsv", "b a\tx y\n");
  spill(scratch / "test.tsv", "a\tx\n");
}

TEST(Pairs, AFolderIsItsFiles) {
  const testing::Scratch scratch;
  write_folder(scratch, "a b a\ty _ y\r\n\r\nb\tx\na  c\ty y");
  spill(scratch / "long.tsv",
        "\xEF\xBB\xBF"
        "a b c a\tx x y y\nc c c c\ty y y x\n");
  spill(scratch / "readme.txt", "not read\n");
  const Corpus corpus = Pairs().load(scratch.folder());
  // By falling frequency in the training file: a 3, b 2, c 1; y 4, x 1.
  EXPECT_EQ(corpus.vocabulary.decode({0, 1, 2}), "a b c");
  EXPECT_EQ(corpus.answers->decode({0, 1}), "y x");
  EXPECT_EQ(corpus.vocabulary.size() + corpus.answers->size(), 5);
  EXPECT_TRUE(at::equal(corpus.train.extents, longs({3, 1, 2}).view({3, 1})));
  EXPECT_TRUE(at::equal(corpus.train.tokens, longs({0, 1, 0, 1, 0, 0, 0, 2, 0}).view({3, 3})));
  EXPECT_TRUE(at::equal(corpus.train.targets, longs({0, -1, 0, 1, -1, -1, 0, 0, -1}).view({3, 3})));
  EXPECT_EQ(corpus.train.answer, kEveryPosition);
  EXPECT_TRUE(at::equal(corpus.valid.tokens, longs({1, 0}).view({1, 2})));
  EXPECT_EQ(corpus.splits(), (std::vector<std::string>{"train", "valid", "test", "long"}));
  const Split more = corpus.split("long");
  EXPECT_FALSE(more.extents.defined());
  EXPECT_TRUE(at::equal(more.targets[1], longs({0, 0, 0, 1})));
}

TEST(Pairs, AFileIsCutInOrder) {
  const testing::Scratch scratch;
  std::string text;
  for (int i = 0; i < 20; ++i) text += i % 2 ? "a\tx\n" : "b\ty\n";
  spill(scratch / "all.tsv", text);
  const Pairs task{.shares = {.valid = 0.1, .test = 0.25}};
  const Corpus corpus = task.load(scratch / "all.tsv");
  EXPECT_EQ(corpus.train.tokens.size(0), 13);
  EXPECT_EQ(corpus.valid.tokens.size(0), 2);
  EXPECT_EQ(corpus.test.tokens.size(0), 5);
  EXPECT_TRUE(corpus.more.empty());
  EXPECT_EQ(corpus.vocabulary.token(corpus.valid.tokens[0][0].item<int64_t>()), "a");
  EXPECT_EQ(corpus.vocabulary.token(corpus.test.tokens[0][0].item<int64_t>()), "a");
  const Corpus again = task.load(scratch / "all.tsv", corpus.vocabulary, *corpus.answers);
  EXPECT_TRUE(at::equal(again.test.tokens, corpus.test.tokens));
  EXPECT_EQ(again.split("all").tokens.size(0), 20);
  spill(scratch / "all.tsv", "a\tx\nb\ty\n");
  EXPECT_SAYS(error_of([&] { task.load(scratch / "all.tsv"); }),
              "has 2 problems, of which 1 for validation and 1 for test leave none to train on");
  // Too few to be cut, but evaluated as a whole.
  const Corpus few = task.load(scratch / "all.tsv", corpus.vocabulary, *corpus.answers);
  EXPECT_EQ(few.split("all").tokens.size(0), 2);
}

TEST(Pairs, GridsOfSeveralSizesStandInTheCornerOfARow) {
  const testing::Scratch scratch;
  write_folder(scratch, "a b / b a/a a\tx y / y _ / x x\nb b b/ a a a\ty y y / x x x\n");
  spill(scratch / "valid.tsv", "a / b\tx / x\n");
  spill(scratch / "test.tsv", "a b/b b\tx _ / _ _\n");
  const Pairs task{.dimensions = 2};
  const Corpus corpus = task.load(scratch.folder());
  ASSERT_EQ(corpus.train.tokens.sizes(), (at::IntArrayRef{2, 3, 3}));
  EXPECT_TRUE(at::equal(corpus.train.extents, longs({3, 2, 2, 3}).view({2, 2})));
  const int64_t a = *corpus.vocabulary.find("a"), b = *corpus.vocabulary.find("b");
  EXPECT_TRUE(
      at::equal(corpus.train.tokens[0].narrow(1, 0, 2), longs({a, b, b, a, a, a}).view({3, 2})));
  EXPECT_TRUE(
      at::equal(corpus.train.tokens[1].narrow(0, 0, 2), longs({b, b, b, a, a, a}).view({2, 3})));
  EXPECT_EQ(corpus.train.targets[0][1][1].item<int64_t>(), -1);
  EXPECT_EQ(corpus.train.targets[0][0][2].item<int64_t>(), -1);
  EXPECT_EQ(corpus.train.targets[1][2][0].item<int64_t>(), -1);
  EXPECT_EQ(corpus.train.targets.ge(0).sum().item<int64_t>(), 11);
  EXPECT_EQ(Task(task)->dimensions(), 2);
  EXPECT_EQ(Task(Pairs())->dimensions(), 1);
}

TEST(Pairs, EveryMistakeIsALine) {
  const testing::Scratch scratch;
  const auto says = [&](const std::string& train, const Pairs& task = {}) {
    write_folder(scratch, "a b\tx y\n" + train);
    return error_of([&] { task.load(scratch.folder()); });
  };
  const auto grids = [&](const std::string& line) {
    write_folder(scratch, "a / b\tx / y\n" + line);
    return error_of([&] { Pairs{.dimensions = 2}.load(scratch.folder()); });
  };
  EXPECT_SAYS(says("a a\n"), "train.tsv, line 2: 1 columns; expected two, a problem, a tab");
  EXPECT_SAYS(says("a\tx\tx\n"), "train.tsv, line 2: 3 columns");
  EXPECT_SAYS(says("a b\tx\n"), "line 2: an answer of 1 symbols to a problem of 2; expected as");
  EXPECT_SAYS(says("a b\tx x x\n"), "line 2: an answer of 3 symbols to a problem of 2");
  EXPECT_SAYS(says("a \xff\tx x\n"), "train.tsv, line 2: byte 0xff; expected UTF-8 text");
  EXPECT_SAYS(says(std::string("\na\0b\tx\n", 7)),
              "train.tsv, line 3: byte 0x00; expected UTF-8 text, not binary or UTF-16");
  EXPECT_SAYS(says("\n\n\tx\n"), "line 4: a row without a symbol");
  EXPECT_SAYS(says("a \t \n"), "line 2: a row without a symbol");
  EXPECT_SAYS(says("a b\t_ _\n"), "line 2: an answer of nothing but _");
  EXPECT_SAYS(says("a / b\tx / y\n"),
              "line 2: a grid (its rows joined by /); expected a sequence, as task-dimensions = 1");
  EXPECT_SAYS(grids("a b\tx y\n"),
              "line 2: a sequence; expected a grid, its rows joined by /, as task-dimensions = 2");
  EXPECT_SAYS(grids("a / b\tx y\n"), "line 2: a sequence; expected a grid");
  EXPECT_SAYS(grids("a b / a\tx x / x\n"), "line 2: row 2 has 1 symbols; expected 2, as the first");
  EXPECT_SAYS(grids("a b / a b\tx x\x2Fx\n"), "line 2: row 2 has 1 symbols; expected 2");
  EXPECT_SAYS(grids("a b / a b\tx / x\n"),
              "line 2: an answer of 2 x 1 symbols to a problem of 2 x 2");
  EXPECT_SAYS(grids("a / / b\tx / x / x\n"), "line 2: a row without a symbol");
  write_folder(scratch, "\n \n");
  EXPECT_SAYS(error_of([&] { Pairs().load(scratch.folder()); }), "train.tsv' has no problems");
  EXPECT_SAYS(error_of([&] { Pairs().load(""); }), "data is missing: task pairs reads a file");
  EXPECT_SAYS(error_of([&] { Pairs().load(scratch / "none.tsv"); }), "none.tsv");
  std::filesystem::remove(scratch / "valid.tsv");
  write_folder(scratch, "a b\tx y\n");
  std::filesystem::remove(scratch / "valid.tsv");
  EXPECT_SAYS(error_of([&] { Pairs().load(scratch.folder()); }), "valid.tsv");
}

TEST(Pairs, AnUnknownSymbolIsNamedWithItsLineInALargeFile) {
  const testing::Scratch scratch;
  write_folder(scratch, "a b\tx y\n");
  std::string text;
  for (int i = 1; i <= 1000000; ++i) text += i == 17 ? "a q\tx y\n" : "a b\tx y\n";
  spill(scratch / "test.tsv", text);
  EXPECT_SAYS(error_of([&] { Pairs().load(scratch.folder()); }),
              "test.tsv, line 17: symbol 'q' is not among the 2 of the training split's problems");
  spill(scratch / "test.tsv", "a b\tx y\nb b\ty z\n");
  EXPECT_SAYS(error_of([&] { Pairs().load(scratch.folder()); }),
              "test.tsv, line 2: symbol 'z' is not among the 2 of the training split's answers");
  // Of one file, what is held out may have no symbol of its own either.
  spill(scratch / "one.tsv", "a b\tx y\na b\tx y\na c\tx y\n");
  EXPECT_SAYS(error_of([&] { Pairs().load(scratch / "one.tsv"); }), "one.tsv, line 3: symbol 'c'");
}

TEST(Pairs, ProblemsThatWouldNotFitIntoMemoryAreAnError) {
  const testing::Scratch scratch;
  std::string train, x;
  for (int i = 0; i < 100000; ++i) x += "a ";
  train = x + "\t" + x + "\n";
  for (int i = 0; i < 10000; ++i) train += "a\ta\n";
  write_folder(scratch, train);
  EXPECT_SAYS(error_of([&] { Pairs().load(scratch.folder()); }),
              "10001 problems with room for the largest, of 100000 places, are too many");
}

}  // namespace
}  // namespace deq
