// Sudoku by search: the boards of a task, and the check of an answer.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
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

/// Which places stand together.
struct Groups {
  explicit Groups(int64_t side) : of(size_t(side * side)), places(size_t(3 * side)) {
    const auto box = int64_t(std::lround(std::sqrt(double(side))));
    for (int64_t place = 0; place < side * side; ++place) {
      const int64_t row = place / side, column = place % side;
      of[size_t(place)] = {row, side + column, 2 * side + row / box * box + column / box};
      for (const int64_t group : of[size_t(place)]) places[size_t(group)].push_back(place);
    }
  }

  std::vector<std::array<int64_t, 3>> of;    // each place's row, column and box
  std::vector<std::vector<int64_t>> places;  // each group's
};

const Groups& groups_of(int64_t side) {
  static const std::array<Groups, 4> known{Groups(4), Groups(9), Groups(16), Groups(25)};
  return known[side == 4 ? 0 : side == 9 ? 1 : side == 16 ? 2 : 3];
}

/// The state of a search: which numbers each group still lacks, as bits.
class Search {
 public:
  explicit Search(int64_t side, int64_t steps = std::numeric_limits<int64_t>::max())
      : side_(side),
        groups_(groups_of(side)),
        steps_left_(steps),
        all_((uint32_t(1) << side) - 1),
        board_(size_t(side * side), 0),
        open_(size_t(side * side), 0),
        lacks_(size_t(3 * side), all_) {}

  /// False where the number stands in one of the place's groups already.
  bool put(int64_t place, int64_t number) {
    const uint32_t bit = uint32_t(1) << (number - 1);
    if (!(candidates(place) & bit)) return false;
    board_[size_t(place)] = number;
    for (const int64_t group : groups_.of[size_t(place)]) lacks_[size_t(group)] &= ~bit;
    return true;
  }

  /// Finds up to `limit` solutions.
  void run(int64_t limit, SudokuSolutions& found) {
    const Choice choice = next_choice();
    if (choice.place < 0 && found.count++ == 0) found.first = board_;
    for (uint32_t left = choice.numbers; left != 0; left &= left - 1) {
      if (steps_left_ == 0) found.complete = false;
      if (steps_left_-- <= 0) return;
      put(choice.place, std::countr_zero(left) + 1);
      run(limit, found);
      take(choice.place);
      if (found.count >= limit) return;
    }
  }

  /// Fills the board at random; false: it cannot be.
  bool fill(std::mt19937_64& random) {
    const Choice choice = fewest_numbers();
    if (choice.place < 0) return true;
    std::vector<int64_t> numbers;
    for (uint32_t left = choice.numbers; left != 0; left &= left - 1)
      numbers.push_back(std::countr_zero(left) + 1);
    for (size_t i = numbers.size(); i > 1; --i)
      std::swap(numbers[i - 1], numbers[size_t(below(int64_t(i), random))]);
    for (const int64_t number : numbers) {
      put(choice.place, number);
      if (fill(random)) return true;
      take(choice.place);
    }
    return false;
  }

  const Board& board() const { return board_; }

 private:
  /// Where to go on, and the numbers to try there, as bits: none is a dead end.
  struct Choice {
    int64_t place = -1;  // -1: the board is full
    uint32_t numbers = 0;
  };

  uint32_t candidates(int64_t place) const {
    uint32_t left = all_;
    for (const int64_t group : groups_.of[size_t(place)]) left &= lacks_[size_t(group)];
    return left;
  }
  void take(int64_t place) {
    const uint32_t bit = uint32_t(1) << (board_[size_t(place)] - 1);
    board_[size_t(place)] = 0;
    for (const int64_t group : groups_.of[size_t(place)]) lacks_[size_t(group)] |= bit;
  }
  /// A blank with the fewest numbers that fit. Where it has more than one, `open_` has those of
  /// every place.
  Choice fewest_numbers() {
    Choice best;
    int64_t least = side_ + 1;
    for (int64_t place = 0; place < side_ * side_; ++place) {
      uint32_t& open = open_[size_t(place)];
      open = board_[size_t(place)] == 0 ? candidates(place) : 0;
      const int64_t choices = std::popcount(open);
      if (board_[size_t(place)] != 0 || choices >= least) continue;
      best = {place, open};
      least = choices;
      if (least <= 1) break;
    }
    return best;
  }
  /// Such a blank, or the one place that a number has left in a group: boards of 17 givens are
  /// through 500 times as fast as without these.
  Choice next_choice() {
    const Choice best = fewest_numbers();
    if (std::popcount(best.numbers) <= 1) return best;
    for (size_t group = 0; group < lacks_.size(); ++group) {
      uint32_t once = 0, twice = 0;
      for (const int64_t place : groups_.places[group]) {
        twice |= once & open_[size_t(place)];
        once |= open_[size_t(place)];
      }
      if (lacks_[group] & ~once) return {best.place, 0};  // a number without a place
      const uint32_t single = once & ~twice;
      for (const int64_t place : groups_.places[group]) {
        if (open_[size_t(place)] & single) return {place, open_[size_t(place)] & single};
      }
    }
    return best;
  }

  int64_t side_;
  const Groups& groups_;
  int64_t steps_left_;
  uint32_t all_;
  Board board_;
  std::vector<uint32_t> open_;  // numbers that fit, of each place
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
  if (limit > 0) search.run(limit, found);
  return found;
}

void check_sudoku(const Board& puzzle, const std::string& where) {
  constexpr int64_t kSteps = 1 << 18;
  SudokuSolutions found;
  try {
    found = solve_sudoku(puzzle, 2, kSteps);
  } catch (const Error& error) {
    throw Error(fmt::format("{}: {}", where, error.what()));
  }
  DEQ_CHECK(found.count > 0 || !found.complete, "{}: a puzzle without a solution; expected one",
            where);
  const auto given = std::ranges::count_if(puzzle, [](int64_t number) { return number != 0; });
  DEQ_CHECK(found.count <= 1,
            "{}: a puzzle with more than one solution, {} of {} places given; expected one", where,
            given, puzzle.size());
}

SudokuPuzzle make_sudoku(int64_t side, std::mt19937_64& random, int64_t givens) {
  Search full(side);
  full.fill(random);
  SudokuPuzzle made{full.board(), full.board()};
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
