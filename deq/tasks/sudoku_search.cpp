// Sudoku by search: the boards of a task, and the check of an answer.
#include <algorithm>
#include <bit>
#include <limits>
#include <numeric>

#include "deq/tasks/sudoku.h"

namespace deq {
namespace {

/// n of a board of n^2 places.
int64_t side_of(const Board& board) {
  for (const int64_t side : {4, 9, 16, 25}) {
    if (int64_t(board.size()) == side * side) return side;
  }
  throw Error(fmt::format("a board of {} places; expected 16, 81, 256 or 625", board.size()));
}

/// The state of a search: which numbers each group still lacks, as bits.
class Search {
 public:
  explicit Search(int64_t side, int64_t steps = std::numeric_limits<int64_t>::max())
      : side_(side),
        box_(side == 4    ? 2
             : side == 9  ? 3
             : side == 16 ? 4
                          : 5),
        steps_left_(steps),
        all_((uint32_t(1) << side) - 1),
        board_(size_t(side * side), 0),
        lacks_(size_t(3 * side), all_) {}

  /// False where the number stands in one of the place's groups already.
  bool put(int64_t place, int64_t number) {
    const uint32_t bit = uint32_t(1) << (number - 1);
    if (!(candidates(place) & bit)) return false;
    board_[size_t(place)] = number;
    for (const int64_t group : groups(place)) lacks_[size_t(group)] &= ~bit;
    return true;
  }

  /// Finds up to `limit` solutions; with `random`, in a random order.
  void run(int64_t limit, SudokuSolutions& found, std::mt19937_64* random = nullptr) {
    if (found.count >= limit) return;
    const int64_t place = fewest_choices();
    if (place < 0) {
      if (found.count++ == 0) found.first = board_;
      return;
    }
    std::vector<int64_t> numbers;
    for (uint32_t left = candidates(place); left != 0; left &= left - 1)
      numbers.push_back(std::countr_zero(left) + 1);
    for (size_t i = numbers.size(); random && i > 1; --i)
      std::swap(numbers[i - 1], numbers[size_t(below(int64_t(i), *random))]);
    for (const int64_t number : numbers) {
      if (steps_left_ == 0) found.complete = false;
      if (steps_left_-- <= 0) return;
      put(place, number);
      run(limit, found, random);
      take(place);
      if (found.count >= limit) return;
    }
  }

 private:
  std::array<int64_t, 3> groups(int64_t place) const {
    const int64_t row = place / side_, column = place % side_;
    return {row, side_ + column, 2 * side_ + row / box_ * box_ + column / box_};
  }
  uint32_t candidates(int64_t place) const {
    uint32_t left = all_;
    for (const int64_t group : groups(place)) left &= lacks_[size_t(group)];
    return left;
  }
  void take(int64_t place) {
    const uint32_t bit = uint32_t(1) << (board_[size_t(place)] - 1);
    board_[size_t(place)] = 0;
    for (const int64_t group : groups(place)) lacks_[size_t(group)] |= bit;
  }
  /// A blank with the fewest numbers that fit; -1: the board is full.
  int64_t fewest_choices() const {
    int64_t best = -1, least = side_ + 1;
    for (int64_t place = 0; place < side_ * side_; ++place) {
      if (board_[size_t(place)] != 0) continue;
      const int64_t choices = std::popcount(candidates(place));
      if (choices < least) {
        best = place;
        least = choices;
        if (least <= 1) break;
      }
    }
    return best;
  }

  int64_t side_, box_;
  int64_t steps_left_;
  uint32_t all_;
  Board board_;
  std::vector<uint32_t> lacks_;
};

}  // namespace

SudokuSolutions solve_sudoku(const Board& puzzle, int64_t limit, int64_t steps) {
  const int64_t side = side_of(puzzle);
  SudokuSolutions found;
  Search search(side, steps);
  for (size_t place = 0; place < puzzle.size(); ++place) {
    DEQ_CHECK(puzzle[place] >= 0 && puzzle[place] <= side,
              "number {} on a board of {} a side; expected 1 to {}, 0 for a blank", puzzle[place],
              side, side);
    if (puzzle[place] != 0 && !search.put(int64_t(place), puzzle[place])) return found;
  }
  search.run(limit, found);
  return found;
}

SudokuPuzzle make_sudoku(int64_t side, std::mt19937_64& random, int64_t givens) {
  SudokuSolutions full;
  Search(side).run(1, full, &random);
  SudokuPuzzle made{full.first, full.first};
  std::vector<size_t> order(made.puzzle.size());
  std::iota(order.begin(), order.end(), size_t(0));
  for (size_t i = order.size(); i > 1; --i)
    std::swap(order[i - 1], order[size_t(below(int64_t(i), random))]);
  auto left = int64_t(order.size());
  for (const size_t place : order) {
    if (left == givens) break;
    const int64_t number = std::exchange(made.puzzle[place], 0);
    --left;
    if (solve_sudoku(made.puzzle).count == 1) continue;
    made.puzzle[place] = number;
    ++left;
  }
  return made;
}

}  // namespace deq
