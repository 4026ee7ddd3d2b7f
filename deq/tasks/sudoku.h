#pragma once

#include <limits>

#include "deq/tasks/problems.h"
#include "deq/tasks/written.h"

namespace deq {

/// A Sudoku board of n x n places, n = b^2, as n^2 numbers: 0 for a blank, 1 .. n.
using Board = std::vector<int64_t>;

/// What a puzzle's search found: how many solutions, counted up to `limit`, and the first.
struct SudokuSolutions {
  int64_t count = 0;
  Board first;
  bool complete = true;  ///< false: it ended before it was through, and before the limit
};
/// By trying, always where there are the fewest choices: numbers at a place, or places of a number.
/// Throws deq::Error for a board whose size is not that of a Sudoku of 4, 9, 16 or 25 a side, and
/// for numbers that it cannot have. Ends after `steps` numbers that were tried.
SudokuSolutions solve_sudoku(const Board& puzzle, int64_t limit = 2,
                             int64_t steps = std::numeric_limits<int64_t>::max());
/// Throws deq::Error, which begins with `where`, unless the puzzle has one solution. What a search
/// of about a second does not decide passes: there are puzzles that take minutes.
void check_sudoku(const Board& puzzle, const std::string& where);

/// A full board, and a puzzle from which no given can be taken without a second solution; or one
/// that has `givens`, where that is more.
struct SudokuPuzzle {
  Board puzzle, solution;
};
SudokuPuzzle make_sudoku(int64_t side, std::mt19937_64& random, int64_t givens = 0);

/// Sudoku. With data, a file of lines `puzzle,solution` below a line that names these columns: of
/// its boards, shuffled, `test` for test, `valid` for validation, the others to train on, as Palm,
/// Paquet and Winther (2018) split the 49,151 boards of 17 givens. A third column, `level`, makes
/// it a file of tests alone, with a test set for each level. Throws deq::Error, with the line, for
/// a puzzle that has not one solution, the one that is stated. Without data boards are made, each
/// with as few givens as it stands, or with `givens`, `pool` of them to train on.
///
/// A training problem is one of the boards with its numbers renamed and 0 to `more_givens` further
/// givens, each as likely.
struct Sudoku {
  static constexpr const char* name = "sudoku";
  static constexpr Unit unit = Unit::Symbol;
  static constexpr int64_t dimensions = 2;
  int64_t side = 9;
  int64_t givens = 0;
  int64_t more_givens = 17;
  bool renamed = true;
  bool in_order = false;
  int64_t boards = 0;
  ProblemOptions problems{.pool = 2000, .valid = 250, .test = 1000};

  static void fields(auto& self, auto&& field) {
    field("side", self.side, "places a side: 4, 9 or 16", between(4, 16));
    field("givens", self.givens, "of a board, at least; 0: as few as it stands, or as a file has",
          between(0, 256));
    field("more_givens", self.more_givens, "further givens of a training problem at most",
          between(0, 256));
    field("renamed", self.renamed, "exchange the numbers of a training problem, as drawn");
    field("in_order", self.in_order,
          "the last of a file's boards are for test, those before them for validation; false: "
          "drawn ones");
    field("boards", self.boards, "of a file that are trained on; 0: all that are left",
          between(0, 1 << 24));
    field("", self.problems);
  }

  int64_t known_vocabulary() const { return side + 1; }
  /// A blank and the numbers; the numbers.
  std::pair<Vocabulary, Vocabulary> vocabularies() const;
  Corpus load(const std::filesystem::path& data) const;
  /// In a run's vocabularies, which must be this task's own.
  Corpus load(const std::filesystem::path& data, const Vocabulary& inputs,
              const Vocabulary& answers) const;

  /// A board as a line, or as a line for each of its rows; '.', '0' or '_' for a blank; lines
  /// between boxes are passed over. Throws deq::Error for a puzzle that has not one solution, as
  /// far as a search of a second tells.
  std::vector<WrittenProblem> read_text(const std::string& text, const std::string& source,
                                        const Vocabulary& inputs) const;
  /// A board as a line, or as a picture with lines between its boxes.
  std::string show(const Shown& shown) const;
  /// Whether rows, columns and boxes have every number once, and the givens are where they were.
  std::string check(const at::Tensor& problem, const at::Tensor& answer) const;
};

}  // namespace deq
