// Sudoku: boards made, read and varied, against independent checks.
#include "deq/tasks/sudoku.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <fstream>
#include <set>

#include "tests/base/scratch.h"

namespace deq {
namespace {

using testing::error_of;

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
  EXPECT_SAYS(says(good), "line 2: 1 columns; expected 2, as the first line names");
  EXPECT_SAYS(says(std::string(16, '0') + "," + std::string(16, '1')), "its solution is none");
  std::string other = good;
  std::swap(other[0], other[1]);
  EXPECT_SAYS(says(other + "," + good), "the solution has");
  task.problems.test = 8;
  EXPECT_SAYS(error_of([&] { task.load(scratch / "plain.csv"); }),
              "9 boards, of which 2 for validation and 8 for test leave none");
}

Board board_of(const at::Tensor& tokens, int64_t s) {
  const at::Tensor one = tokens[s].contiguous();
  return Board(one.data_ptr<int64_t>(), one.data_ptr<int64_t>() + one.numel());
}

int64_t given(const Board& board) {
  return std::ranges::count_if(board, [](int64_t number) { return number != 0; });
}

class SudokuFiles : public ::testing::Test {
 protected:
  void SetUp() override {
    std::mt19937_64 random(8);
    for (int i = 0; i < 12; ++i) boards.push_back(make_sudoku(4, random));
    boards[10] = boards[1];
    testing::spill(scratch / "b.csv", lines(boards));
  }
  static std::string lines(const std::vector<SudokuPuzzle>& boards) {
    std::string text = "puzzle,solution\n";
    for (const SudokuPuzzle& board : boards) {
      for (const int64_t number : board.puzzle) text += char('0' + number);
      text += ',';
      for (const int64_t number : board.solution) text += char('0' + number);
      text += '\n';
    }
    return text;
  }
  Sudoku task() const {
    return {.side = 4,
            .more_givens = 0,
            .renamed = false,
            .in_order = true,
            .problems = {.train = 400, .valid = 2, .test = 3}};
  }

  testing::Scratch scratch;
  std::vector<SudokuPuzzle> boards;
};

TEST_F(SudokuFiles, APuzzleWithSeveralSolutionsIsNamedByItsLine) {
  const auto says = [&](SudokuPuzzle board) {
    boards[3] = std::move(board);
    testing::spill(scratch / "m.csv", lines(boards));
    return error_of([&] { task().load(scratch / "m.csv"); });
  };
  EXPECT_SAYS(
      says({Board(16, 0), boards[3].solution}),
      "m.csv, line 5: a puzzle with more than one solution, 0 of 16 places given; expected");
  SudokuPuzzle fewer = boards[4];  // minimal: without one of its givens it has several
  *std::ranges::find_if(fewer.puzzle, [](int64_t number) { return number != 0; }) = 0;
  EXPECT_SAYS(says(fewer), std::to_string(given(fewer.puzzle)) + " of 16 places given");
  boards[3] = boards[4];
  testing::spill(scratch / "m.csv", lines(boards));
  EXPECT_NO_THROW(task().load(scratch / "m.csv"));
}

TEST_F(SudokuFiles, LinesEndAsTheyDo) {
  std::string windows = "\xEF\xBB\xBF";
  for (const char each : lines(boards)) windows += each == '\n' ? "\r\n" : std::string(1, each);
  testing::spill(scratch / "w.csv", windows + "\r\n");
  const Corpus read = task().load(scratch / "w.csv"), plain = task().load(scratch / "b.csv");
  EXPECT_TRUE(read.test.tokens.equal(plain.test.tokens));
}

TEST_F(SudokuFiles, WhatIsNoBoardIsOneLine) {
  const std::string good = lines({boards[0]}).substr(16);  // below the first line
  const std::string row = good.substr(0, good.size() - 1), first = "puzzle,solution\n";
  const std::pair<std::string, const char*> cases[] = {
      {"", "x.csv' has no boards; expected a line puzzle,solution"},
      {first, "x.csv' has no boards"},
      {good, "x.csv, line 1: '"},
      {first + row + ",1\n", "line 2: 3 columns; expected 2"},
      {first + "\n" + row + "\xff\n", "line 3: byte 0xff; expected UTF-8 text"},
      {first + std::string(3, '\0'), "line 2: byte 0x00; expected UTF-8 text, not binary"},
      {"puzzle,solution,level\n" + row + ",\n", "line 2: level ''; expected a name other than"},
      {"puzzle,solution,level\n" + row + ",test\n", "line 2: level 'test'"}};
  for (const auto& [text, expected] : cases) {
    testing::spill(scratch / "x.csv", text);
    EXPECT_SAYS(error_of([&] { task().load(scratch / "x.csv"); }), expected);
  }
}

TEST(Sudoku, BoardsOfSeventeenGivensAreSolvedInAFewSteps) {
  const std::string line =
      "000000010400000000020000000000050407008000300001090000300400200050100000000806000";
  Board puzzle;
  for (const char each : line) puzzle.push_back(each - '0');
  const SudokuSolutions found = solve_sudoku(puzzle, 2, 1000);
  EXPECT_TRUE(found.complete);
  EXPECT_EQ(found.count, 1);
}

TEST_F(SudokuFiles, InOrderTheLastAreTheTest) {
  const Corpus corpus = task().load(scratch / "b.csv");
  for (int64_t s = 0; s < 3; ++s)
    EXPECT_EQ(board_of(corpus.test.tokens, s), boards[size_t(9 + s)].puzzle);
  for (int64_t s = 0; s < 2; ++s)
    EXPECT_EQ(board_of(corpus.valid.tokens, s), boards[size_t(7 + s)].puzzle);
  std::set<Board> seen, expected;
  for (int64_t s = 0; s < 400; ++s) seen.insert(board_of(corpus.train.tokens, s));
  for (size_t i = 0; i < 7; ++i) expected.insert(boards[i].puzzle);
  EXPECT_EQ(seen, expected) << "neither renamed nor given more";

  ASSERT_EQ(corpus.splits().back(), "unseen");
  const Split unseen = corpus.split("unseen");
  ASSERT_EQ(unseen.tokens.size(0), 2);
  EXPECT_EQ(board_of(unseen.tokens, 0), boards[9].puzzle);
  EXPECT_EQ(board_of(unseen.tokens, 1), boards[11].puzzle);

  Sudoku few = task();
  few.boards = 1;
  const Corpus first = few.load(scratch / "b.csv");
  EXPECT_EQ(first.splits().back(), "test") << "the board that is twice there is not trained on";
  for (int64_t s = 0; s < 400; ++s) ASSERT_EQ(board_of(first.train.tokens, s), boards[0].puzzle);
  few.renamed = true;
  seen.clear();
  const at::Tensor renamed = few.load(scratch / "b.csv").train.tokens;
  for (int64_t s = 0; s < 400; ++s) seen.insert(board_of(renamed, s));
  EXPECT_GE(seen.size(), 12u) << "of 24 ways to name 4 numbers";
}

TEST_F(SudokuFiles, AreReadForWhatIsOfFiles) {
  Sudoku made{.in_order = true};
  EXPECT_SAYS(error_of([&] { made.load(""); }), "task-in-order = true, task-boards = 0");
  made = {.boards = 3};
  EXPECT_SAYS(error_of([&] { made.load(""); }), "boards are made, not read; expected data");
}

TEST_F(SudokuFiles, AreGivenAsManyAsTheyAreToHave) {
  Sudoku more = task();
  more.givens = 9;
  const Corpus corpus = more.load(scratch / "b.csv");
  for (const Split* split : {&corpus.train, &corpus.valid, &corpus.test}) {
    for (int64_t s = 0; s < split->tokens.size(0); ++s) {
      const Board puzzle = board_of(split->tokens, s);
      ASSERT_EQ(given(puzzle), 9);
      const SudokuSolutions found = solve_sudoku(puzzle);
      ASSERT_EQ(found.count, 1);
      Board solution = board_of(split->targets, s);
      for (int64_t& number : solution) ++number;
      ASSERT_EQ(found.first, solution);
    }
  }
  const Board before = boards[9].puzzle, after = board_of(corpus.test.tokens, 0);
  for (size_t place = 0; place < before.size(); ++place) {
    if (before[place] == 0) continue;
    EXPECT_EQ(after[place], before[place]);
  }
  more.givens = 1;
  EXPECT_EQ(board_of(more.load(scratch / "b.csv").test.tokens, 0), before) << "none are taken";
}

}  // namespace
}  // namespace deq
