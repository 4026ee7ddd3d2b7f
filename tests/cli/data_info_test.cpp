// deq data info: what is in a data set.
#include <gtest/gtest.h>

#include "tests/base/scratch.h"
#include "tests/cli/command.h"

namespace deq {
namespace {

using testing::Output;
using testing::run_deq;
using testing::Scratch;
using testing::spill;

TEST(DataInfo, CountsAndMeasures) {
  Scratch scratch;
  spill(scratch / "train.txt", "a b\na a\n");
  spill(scratch / "valid.txt", "a\n");
  spill(scratch / "test.txt", "b b\n");
  const std::string folder = "data info '" + scratch.folder().string() + "'";
  const Output words = run_deq(folder + " --task words");
  EXPECT_EQ(words.exit_code, 0);
  EXPECT_SAYS(words.text, "vocabulary  3 words");
  EXPECT_SAYS(words.text, "train       6 words");
  // a: (3 + 1) / (6 + 3), <eos>: (2 + 1) / 9; the mean of -log2 of both
  EXPECT_SAYS(words.text, "valid       2 words, unigram entropy 1.3774 bits per word");
  EXPECT_SAYS(run_deq(folder + " --task characters").text, "test        4 characters");
  EXPECT_SAYS(run_deq(folder + " --task words --task-min-count 2").text, "vocabulary  3 words");
  const Output wrong = run_deq(folder + " --task word 2>&1");
  EXPECT_EQ(wrong.exit_code, 1);
  EXPECT_SAYS(wrong.text, "unknown task 'word'; known: words, bytes, characters, copy-memory");
  EXPECT_SAYS(run_deq("data info '" + (scratch / "train.txt").string() + "' 2>&1").text,
              "tasks bytes and characters read single files");
  EXPECT_SAYS(run_deq("data info 2>&1").text, "error: data is not set; expected a text file");
}

TEST(DataInfo, OfProblems) {
  Scratch scratch;
  spill(scratch / "train.tsv", "a b / a a\tx y / _ x\na\x2F b\tx / z\n");
  spill(scratch / "valid.tsv", "a / b\tx / z\n");
  spill(scratch / "test.tsv", "b b b / a a a\tx y x / x x x\n");
  spill(scratch / "other.tsv", "b / b\tx / y\n");
  const Output pairs = run_deq("data info '" + scratch.folder().string() +
                               "' --task pairs --task-dimensions 2 2>&1");
  EXPECT_EQ(pairs.exit_code, 0);
  EXPECT_SAYS(pairs.text, "vocabulary  2 symbols");
  EXPECT_SAYS(pairs.text, "answers     3 symbols");
  EXPECT_SAYS(pairs.text,
              "train       2 problems of up to 2 x 2 symbols, 5 of the answers are scored");
  EXPECT_SAYS(pairs.text, "test        1 problems of 2 x 3 symbols, 6 of the answers are scored");
  EXPECT_SAYS(pairs.text, "test sets   other");
}

TEST(DataInfo, OfSequences) {
  const Output copy = run_deq("data info --task copy-memory --task-delay 100");
  EXPECT_EQ(copy.exit_code, 0);
  EXPECT_SAYS(copy.text, "vocabulary  10 symbols");
  // 10 ln 8 / 120 = 0.1733
  EXPECT_SAYS(copy.text, "test        2000 sequences of 120 symbols, entropy by position 0.173");
  const Output wrong = run_deq("data info data/ptb --task copy-memory 2>&1");
  EXPECT_EQ(wrong.exit_code, 1);
  EXPECT_SAYS(wrong.text, "error: data = 'data/ptb'; expected none");
}

}  // namespace
}  // namespace deq
