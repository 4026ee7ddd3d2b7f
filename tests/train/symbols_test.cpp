// What cells that read and answer by symbol ask of a task's vocabularies and sizes.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "deq/cells/conditions.h"
#include "deq/tasks/sudoku.h"
#include "deq/tasks/tasks.h"
#include "deq/train/training_checks.h"
#include "tests/base/scratch.h"

namespace deq {
namespace {

using testing::error_of;

Corpus boards() {
  return Sudoku{.side = 4, .problems = {.train = 4, .pool = 4, .valid = 4, .test = 4}}.load("");
}

ModelOptions optnet() {
  ModelOptions options;
  options.cell = LearnedProgram{.places = 16};
  return options;
}

TEST(Symbols, OfABlankAndOfAnswersAreReadAsWhatTheyAre) {
  const Corpus corpus = boards();
  const Model model(optnet(), {corpus.vocabulary.size(), corpus.answer_vocabulary().size()});
  EXPECT_NO_THROW(check_symbols(model, corpus));
  Corpus other = corpus;  // the blank is not the first
  other.vocabulary = Vocabulary(Unit::Symbol, {"1", ".", "2", "3", "4"});
  EXPECT_SAYS(error_of([&] { check_symbols(model, other); }),
              "cell = optnet: '.' would be read as '1', which is answered");
}

TEST(Symbols, ProblemsOfEverySplitHaveAsManyPlacesAsTheCell) {
  Corpus corpus = boards();
  const Model model(optnet(), {corpus.vocabulary.size(), corpus.answer_vocabulary().size()});
  corpus.test.extents = at::tensor({4, 4, 4, 3, 4, 4, 4, 4}, at::kLong).view({4, 2});
  EXPECT_SAYS(error_of([&] { check_symbols(model, corpus); }), "a problem of 12 places");
}

}  // namespace
}  // namespace deq
