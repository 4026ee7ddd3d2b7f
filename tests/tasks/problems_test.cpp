// Each task's problems beside an independent solver, and what all such tasks promise.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <numeric>
#include <set>

#include "deq/data/random.h"
#include "deq/tasks/mazes.h"
#include "deq/tasks/prefix_sums.h"
#include "deq/tasks/sudoku.h"
#include "deq/tasks/tasks.h"
#include "deq/tasks/word_problem.h"
#include "tests/base/scratch.h"

namespace deq {
namespace {

using testing::error_of;

bool same(const Split& a, const Split& b) {
  return at::equal(a.tokens, b.tokens) && at::equal(a.targets, b.targets);
}

TEST(PrefixSums, AreCumulativeSums) {
  const PrefixSums task{.problems = {.train = 10000}};
  const Corpus corpus = task.load("");
  EXPECT_TRUE(at::equal(corpus.train.tokens.cumsum(1).remainder(2), corpus.train.targets));
  EXPECT_EQ(corpus.train.tokens.sizes(), (at::IntArrayRef{10000, 32}));
  EXPECT_NEAR(corpus.train.tokens.to(at::kDouble).mean().item<double>(), 0.5, 0.005);
  EXPECT_EQ(corpus.train.answer, kEveryPosition);
  for (const int64_t length : {64, 128, 256, 512, 2048}) {
    const Split set = corpus.split(std::to_string(length));
    EXPECT_EQ(set.tokens.sizes(), (at::IntArrayRef{1000, length}));
    EXPECT_TRUE(at::equal(set.tokens.cumsum(1).remainder(2), set.targets));
  }
}

TEST(Problems, ASeedGivesTheSameAndEpochsDiffer) {
  const PrefixSums task{.problems = {.train = 50, .valid = 20, .test = 30}};
  const Corpus a = task.load(""), b = task.load("");
  EXPECT_TRUE(same(a.train, b.train));
  EXPECT_TRUE(same(a.draw(0), a.train));
  EXPECT_TRUE(same(a.draw(3), b.draw(3)));
  EXPECT_FALSE(same(a.draw(1), a.train));
  EXPECT_TRUE(same(a.split("64"), b.split("64")));
  EXPECT_FALSE(at::equal(a.valid.tokens.narrow(0, 0, 20), a.test.tokens.narrow(0, 0, 20)));
  EXPECT_FALSE(at::equal(a.valid.tokens, a.train.tokens.narrow(0, 0, 20)));
  PrefixSums other = task;
  other.problems.seed = 2;
  EXPECT_FALSE(same(other.load("").train, a.train));
  // A set does not depend on how many there are, of it or of others.
  other = task;
  other.problems.test = 10;
  other.problems.valid = 7;
  other.test_lengths = {64};
  const Corpus fewer = other.load("");
  EXPECT_TRUE(at::equal(fewer.test.tokens, a.test.tokens.narrow(0, 0, 10)));
  EXPECT_TRUE(at::equal(fewer.split("64").tokens, a.split("64").tokens.narrow(0, 0, 10)));
  // These bits are the same on every machine.
  EXPECT_EQ(a.train.tokens.narrow(0, 0, 1).sum().item<int64_t>(), 15);
}

TEST(Problems, APoolIsTrainedOnAgainAndAgain) {
  const PrefixSums task{.problems = {.train = 50, .pool = 8}};
  const Corpus corpus = task.load("");
  EXPECT_EQ(corpus.train.tokens.size(0), 8);
  EXPECT_FALSE(corpus.draw);
}

TEST(Problems, RefuseDataAndOtherVocabularies) {
  EXPECT_SAYS(error_of([] { PrefixSums().load("x.csv"); }),
              "data = 'x.csv'; expected none: task prefix-sums makes its own problems");
  EXPECT_SAYS(error_of([] {
                PrefixSums().load("", symbols({"a", "b"}), symbols({"0", "1"}));
              }),
              "expected those of task prefix-sums");
  EXPECT_SAYS(error_of([] {
                PrefixSums({.test_lengths = {64, 64}}).load("");
              }),
              "64 stands there twice");
  EXPECT_SAYS(error_of([] { PrefixSums({.test_lengths = {0}}).load(""); }),
              "task-test-lengths = 0");
  EXPECT_SAYS(error_of([] { WordProblem({.min_length = 9, .length = 8}).load(""); }),
              "task-min-length = 9");
}

// Independent: permutations applied to points, by the names of the elements.
TEST(WordProblem, AnswersAreThePermutationsOfPoints) {
  const std::map<Group, int64_t> orders{
      {Group::S5, 120}, {Group::A5, 60}, {Group::Z60, 60}, {Group::A4xZ5, 60}};
  for (const auto& [group, order] : orders) {
    const WordProblem task{.group = group, .problems = {.train = 10000}};
    const Corpus corpus = task.load("");
    ASSERT_EQ(corpus.vocabulary.size(), order);
    const auto tokens = corpus.train.tokens.accessor<int64_t, 2>();
    const auto targets = corpus.train.targets.accessor<int64_t, 2>();
    const auto digit = [](char c) { return c <= '9' ? c - '0' : c - 'a' + 10; };
    std::map<int64_t, int64_t> lengths;
    for (int64_t s = 0; s < 10000; ++s) {
      const int64_t length = corpus.train.extents[s][0].item<int64_t>();
      ++lengths[length];
      std::string points = corpus.vocabulary.token(0);  // the identity
      for (int64_t t = 0; t < 32; ++t) {
        if (t >= length) {
          ASSERT_EQ(targets[s][t], -1);
          continue;
        }
        const std::string& element = corpus.vocabulary.token(tokens[s][t]);
        for (char& point : points) point = element[size_t(digit(point))];
        ASSERT_EQ(corpus.answer_vocabulary().token(targets[s][t]), points) << s << " " << t;
      }
    }
    EXPECT_EQ(lengths.begin()->first, 2);
    EXPECT_EQ(lengths.rbegin()->first, 32);
    EXPECT_EQ(lengths.size(), 31u);
    EXPECT_FALSE(corpus.test.extents.defined());
  }
}

TEST(WordProblem, OnlySomeGroupsCommute) {
  const auto commutes = [](Group group) {
    const auto elements = elements_of(group);
    for (const auto& a : elements) {
      for (const auto& b : elements) {
        for (size_t i = 0; i < a.size(); ++i)
          if (b[size_t(a[i])] != a[size_t(b[i])]) return false;
      }
    }
    return true;
  };
  EXPECT_TRUE(commutes(Group::Z60));
  EXPECT_FALSE(commutes(Group::S5));
  EXPECT_FALSE(commutes(Group::A5));
  EXPECT_FALSE(commutes(Group::A4xZ5));
}

TEST(Mazes, AnswersAreTheShortestPaths) {
  const Mazes task{.problems = {.train = 10000}};
  const Corpus corpus = task.load("");
  ASSERT_EQ(corpus.train.tokens.sizes(), (at::IntArrayRef{10000, 11, 11}));
  for (int64_t s = 0; s < 10000; ++s) {
    const at::Tensor maze = corpus.train.tokens[s], path = corpus.train.targets[s];
    const at::Tensor open = maze.ne(Mazes::Wall);
    ASSERT_TRUE(at::equal(path.ge(0), open));
    ASSERT_TRUE(at::equal(path.clamp_min(0), path_through(maze))) << s;
    // A tree: 25 rooms and 24 passages, so that there is no other path.
    ASSERT_EQ(open.sum().item<int64_t>(), 49);
  }
  const Split large = corpus.split("33");
  EXPECT_EQ(large.tokens.sizes(), (at::IntArrayRef{1000, 35, 35}));
  EXPECT_TRUE(at::equal(large.targets[7].clamp_min(0), path_through(large.tokens[7])));
}

TEST(Mazes, TheFarthestOfMorePairsAreStartAndEndOfTraining) {
  const auto mean_length = [](const Mazes& task) {
    const Corpus corpus = task.load("");
    for (int64_t s = 0; s < 500; ++s) {
      EXPECT_TRUE(
          at::equal(corpus.train.targets[s].clamp_min(0), path_through(corpus.train.tokens[s])));
    }
    return std::pair{double(corpus.train.targets.eq(1).sum().item<int64_t>()) / 500,
                     double(corpus.valid.targets.eq(1).sum().item<int64_t>()) / 500};
  };
  const ProblemOptions few{.train = 500, .valid = 500, .test = 1};
  const auto one = mean_length({.problems = few});
  const auto two = mean_length({.pairs = 2, .problems = few});
  const auto all = mean_length({.pairs = 2000, .problems = few});
  EXPECT_NEAR(one.first, one.second, 0.07 * one.first);
  EXPECT_GT(two.first, 1.05 * one.first);
  EXPECT_GT(all.first, 1.2 * two.first);
  EXPECT_EQ(all.second, one.second) << "validation is of any two rooms";
}

TEST(Mazes, BadOnesAreErrors) {
  const at::Tensor walls = at::zeros({5, 5}, at::kLong);
  EXPECT_SAYS(error_of([&] { path_through(walls); }), "a maze with 0 starts; expected one");
  at::Tensor apart = walls.clone();
  apart[1][1] = Mazes::Start;
  apart[3][3] = Mazes::End;
  EXPECT_SAYS(error_of([&] { path_through(apart); }), "a maze without a path");
  EXPECT_SAYS(error_of([&] { path_through(walls[0]); }), "a maze of shape [5]");
}

/// Whether each row, column and box has every number once.
bool is_full(const Board& board, int64_t side) {
  const auto box = int64_t(std::sqrt(double(side)));
  std::set<std::array<int64_t, 3>> seen;
  for (int64_t i = 0; i < side * side; ++i) {
    const int64_t row = i / side, column = i % side, number = board[size_t(i)];
    if (number < 1 || number > side) return false;
    for (const auto& place : {std::array<int64_t, 3>{0, row, number},
                              {1, column, number},
                              {2, row / box * box + column / box, number}}) {
      if (!seen.insert(place).second) return false;
    }
  }
  return true;
}

TEST(Sudoku, MakesBoardsWithOneSolutionAndNoGivenTooMany) {
  std::mt19937_64 random(5);
  for (const int64_t side : {4, 9}) {
    for (int trial = 0; trial < 40; ++trial) {
      const SudokuPuzzle made = make_sudoku(side, random);
      ASSERT_TRUE(is_full(made.solution, side));
      const SudokuSolutions found = solve_sudoku(made.puzzle, 2);
      ASSERT_EQ(found.count, 1);
      ASSERT_EQ(found.first, made.solution);
      for (size_t place = 0; place < made.puzzle.size(); ++place) {
        if (made.puzzle[place] == 0) continue;
        EXPECT_EQ(made.puzzle[place], made.solution[place]);
        Board without = made.puzzle;
        without[place] = 0;
        EXPECT_EQ(solve_sudoku(without, 2).count, 2);
      }
    }
  }
}

TEST(Sudoku, KeepsAsManyGivensAsItIsTold) {
  std::mt19937_64 random(6);
  for (const auto& [side, givens] : {std::pair{4, 10}, {9, 45}, {16, 150}}) {
    const SudokuPuzzle made = make_sudoku(side, random, givens);
    EXPECT_EQ(std::ranges::count_if(made.puzzle, [](int64_t n) { return n != 0; }), givens);
    EXPECT_EQ(solve_sudoku(made.puzzle).count, 1);
    EXPECT_TRUE(is_full(made.solution, side));
  }
}

TEST(Sudoku, CountsSolutions) {
  EXPECT_EQ(solve_sudoku(Board(16, 0), 1000).count, 288);  // of all boards of 4 x 4
  Board twice(16, 0);
  twice[0] = twice[3] = 1;
  EXPECT_EQ(solve_sudoku(twice).count, 0);
  EXPECT_TRUE(solve_sudoku(twice).complete);
  // 288 boards are not found in 100 steps; one is.
  EXPECT_FALSE(solve_sudoku(Board(16, 0), 1000, 100).complete);
  EXPECT_TRUE(solve_sudoku(Board(16, 0), 1, 100).complete);
  EXPECT_SAYS(error_of([] { solve_sudoku(Board(10, 0)); }), "a board of 10 places");
  EXPECT_SAYS(error_of([] { solve_sudoku(Board(16, 5)); }), "number 5 on a board of 4 a side");
}

TEST(Sudoku, TrainingProblemsAreBoardsWithMoreGivens) {
  const Sudoku task{.side = 4,
                    .more_givens = 5,
                    .problems = {.train = 10000, .pool = 30, .valid = 5, .test = 10}};
  const Corpus corpus = task.load("");
  EXPECT_EQ(corpus.test.tokens.sizes(), (at::IntArrayRef{10, 4, 4}));
  EXPECT_EQ(corpus.valid.tokens.size(0), 5);
  const at::Tensor tokens = corpus.train.tokens, targets = corpus.train.targets;
  std::set<int64_t> givens;
  for (int64_t s = 0; s < 10000; ++s) {
    const auto board = [&](const at::Tensor& all, int64_t add) {
      const at::Tensor one = all[s].contiguous();
      Board found(one.data_ptr<int64_t>(), one.data_ptr<int64_t>() + 16);
      for (int64_t& number : found) number += add;
      return found;
    };
    const Board puzzle = board(tokens, 0), solution = board(targets, 1);
    ASSERT_TRUE(is_full(solution, 4));
    const SudokuSolutions found = solve_sudoku(puzzle);
    ASSERT_EQ(found.count, 1);
    ASSERT_EQ(found.first, solution);
    givens.insert(16 - std::count(puzzle.begin(), puzzle.end(), 0));
  }
  EXPECT_EQ(*givens.begin(), 4);
  EXPECT_GE(*givens.rbegin(), 9);
  // Every number stands in a corner about as often: they are renamed.
  const at::Tensor corner = targets.select(1, 0).select(1, 0);
  for (int64_t number = 0; number < 4; ++number)
    EXPECT_NEAR(corner.eq(number).to(at::kDouble).mean().item<double>(), 0.25, 0.02);
}

TEST(Sudoku, ReadsFilesAndTheirLevels) {
  const testing::Scratch scratch;
  std::mt19937_64 random(7);
  const auto text = [](const Board& board) {
    std::string found;
    for (const int64_t number : board) found += char('0' + number);
    return found;
  };
  std::string plain = "puzzle,solution\n", rated = "puzzle,solution,level,se\r\n";
  std::vector<SudokuPuzzle> boards;
  for (int i = 0; i < 9; ++i) {
    boards.push_back(make_sudoku(4, random));
    const std::string line = text(boards.back().puzzle) + "," + text(boards.back().solution);
    plain += line + "\n";
    rated += line + (i < 3 ? ",easy,1\r\n" : ",hard,2\r\n");
  }
  const auto file = [&](const char* name, const std::string& held) {
    std::ofstream(scratch / name) << held;
    return scratch / name;
  };
  Sudoku task{.side = 4, .problems = {.train = 20, .valid = 2, .test = 3}};
  const Corpus corpus = task.load(file("plain.csv", plain));
  EXPECT_EQ(corpus.test.tokens.size(0), 3);
  EXPECT_EQ(corpus.train.tokens.size(0), 20);
  EXPECT_TRUE(corpus.more.empty());
  const auto levels = file("rated.csv", rated);
  EXPECT_SAYS(error_of([&] { task.load(levels); }), "has a column 'level'");
  const Corpus tests = task.load(levels, corpus.vocabulary, *corpus.answers);
  EXPECT_EQ(tests.splits(), (std::vector<std::string>{"train", "valid", "test", "easy", "hard"}));
  EXPECT_EQ(tests.split("easy").tokens.size(0), 3);
  EXPECT_EQ(tests.split("hard").tokens.size(0), 6);
  EXPECT_EQ(tests.split("hard").targets[0][0][0].item<int64_t>(), boards[3].solution[0] - 1);

  const auto says = [&](const std::string& line) {
    return error_of([&] { task.load(file("bad.csv", "puzzle,solution\n" + line + "\n")); });
  };
  const std::string good = text(boards[0].solution);
  EXPECT_SAYS(says("0000,1234"), "bad.csv, line 2: a board of 4 places; expected 16");
  EXPECT_SAYS(says(std::string(16, '7') + "," + good), "'7' on a board; expected 1234");
  EXPECT_SAYS(says(good), "1 columns; expected");
  EXPECT_SAYS(says(std::string(16, '0') + "," + std::string(16, '1')), "its solution is none");
  std::string other = good;
  std::swap(other[0], other[1]);
  EXPECT_SAYS(says(other + "," + good), "the solution has");
  task.problems.test = 8;
  EXPECT_SAYS(error_of([&] { task.load(scratch / "plain.csv"); }),
              "9 boards, of which 2 for validation and 8 for test leave none");
}

TEST(Problems, EveryTaskOfProblemsIsListed) {
  std::set<std::string> names;
  for (const Task& task : TaskData::known()) {
    if (task->own_answers()) names.insert(task.name());
  }
  EXPECT_EQ(names,
            (std::set<std::string>{"prefix-sums", "word-problem", "mazes", "sudoku", "pairs"}));
}

}  // namespace
}  // namespace deq
