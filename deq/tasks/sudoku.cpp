#include "deq/tasks/sudoku.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include "deq/base/printable.h"
#include "deq/data/random.h"
#include "deq/files/files.h"
#include "deq/tasks/lines.h"

namespace deq {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxFile = uint64_t(1) << 30;
constexpr const char* kNumbers = "0123456789ABCDEFG";  // as they are written; 0 or . is a blank

// Streams of random numbers.
constexpr int64_t kBoards = 0, kShuffle = 1, kEpoch = 2, kGivens = 3;

struct Boards {
  std::vector<SudokuPuzzle> puzzles;
  std::vector<std::string> levels;  // of each; empty: the file has none
};

Board read_board(std::string_view text, int64_t side, bool full, const std::string& where) {
  DEQ_CHECK(int64_t(text.size()) == side * side, "{}: a board of {} places; expected {}", where,
            text.size(), side * side);
  Board board;
  const std::string_view known(kNumbers, size_t(side) + 1);
  for (const char each : text) {
    const size_t number = each == '.' ? 0 : known.find(each);
    DEQ_CHECK(number != std::string_view::npos && (number > 0 || !full),
              "{}: '{}' on a board; expected {}{}", where, printable(std::string(1, each)),
              known.substr(1), full ? "" : ", or 0 or . for a blank");
    board.push_back(int64_t(number));
  }
  return board;
}

std::vector<std::string_view> columns_of(std::string_view line) {
  std::vector<std::string_view> columns;
  for (size_t first = 0; first <= line.size();) {
    const size_t end = std::min(line.find(',', first), line.size());
    columns.push_back(line.substr(first, end - first));
    first = end + 1;
  }
  return columns;
}

/// With its one solution.
SudokuPuzzle read_puzzle(std::string_view puzzle, std::string_view solution, int64_t side,
                         const std::string& where) {
  SudokuPuzzle read{read_board(puzzle, side, false, where),
                    read_board(solution, side, true, where)};
  for (size_t i = 0; i < read.puzzle.size(); ++i)
    DEQ_CHECK(read.puzzle[i] == 0 || read.puzzle[i] == read.solution[i],
              "{}: the solution has {} where {} is given", where, read.solution[i], read.puzzle[i]);
  DEQ_CHECK(solve_sudoku(read.solution).count == 1, "{}: its solution is none", where);
  check_sudoku(read.puzzle, where);
  return read;
}

/// The name of a test set.
std::string read_level(std::string_view level, const std::string& where) {
  const std::set<std::string_view> taken{"", "train", "valid", "test"};
  DEQ_CHECK(!taken.contains(level), "{}: level '{}'; expected a name other than train, valid, test",
            where, level);
  return std::string(level);
}

Boards read_boards(const fs::path& path, int64_t side) {
  const std::string text = read_file(path, kMaxFile);
  Boards boards;
  size_t count = 0;  // of columns, as the first line has them; 0: before it
  bool with_levels = false;
  check_text(text, path.string());
  for_each_line(text, [&](std::string_view line, int64_t number) {
    if (is_blank(line)) return;
    const auto columns = columns_of(line);
    const std::string where = at_line(path.string(), number);
    if (count == 0) {
      DEQ_CHECK(columns.size() >= 2 && columns[0] == "puzzle" && columns[1] == "solution",
                "{}: '{}'; expected the columns puzzle,solution", where, printable(line));
      count = columns.size();
      with_levels = count > 2 && columns[2] == "level";
      return;
    }
    DEQ_CHECK(columns.size() == count, "{}: {} columns; expected {}, as the first line names",
              where, columns.size(), count);
    boards.puzzles.push_back(read_puzzle(columns[0], columns[1], side, where));
    if (with_levels) boards.levels.push_back(read_level(columns[2], where));
  });
  DEQ_CHECK(!boards.puzzles.empty(),
            "'{}' has no boards; expected a line puzzle,solution and boards below it",
            printable(path.string(), 400));
  return boards;
}

Split as_split(const std::vector<SudokuPuzzle>& boards, int64_t side) {
  const auto count = int64_t(boards.size());
  Split split{.tokens = at::empty({count, side, side}, at::kLong),
              .targets = at::empty({count, side, side}, at::kLong),
              .answer = kEveryPosition};
  int64_t* token = split.tokens.data_ptr<int64_t>();
  int64_t* target = split.targets.data_ptr<int64_t>();
  for (const SudokuPuzzle& board : boards) {
    token = std::copy(board.puzzle.begin(), board.puzzle.end(), token);
    for (const int64_t number : board.solution) *target++ = number - 1;
  }
  return split;
}

/// With so many more places given, or all.
void give(SudokuPuzzle& board, int64_t more, std::mt19937_64& random) {
  std::vector<size_t> blanks;
  for (size_t place = 0; place < board.puzzle.size(); ++place) {
    if (board.puzzle[place] == 0) blanks.push_back(place);
  }
  for (more = std::min(more, int64_t(blanks.size())); more > 0; --more) {
    std::swap(blanks[size_t(below(int64_t(blanks.size()), random))], blanks.back());
    board.puzzle[blanks.back()] = board.solution[blanks.back()];
    blanks.pop_back();
  }
}

void rename(SudokuPuzzle& board, int64_t side, std::mt19937_64& random) {
  std::vector<int64_t> names(size_t(side) + 1, 0);
  for (int64_t i = 1; i <= side; ++i) names[size_t(i)] = i;
  for (int64_t i = side; i > 1; --i)
    std::swap(names[size_t(i)], names[size_t(1 + below(i, random))]);
  for (Board* numbers : {&board.puzzle, &board.solution}) {
    for (int64_t& number : *numbers) number = names[size_t(number)];
  }
}

/// One of the boards, its numbers renamed, with further givens.
SudokuPuzzle varied(SudokuPuzzle board, const Sudoku& task, std::mt19937_64& random) {
  if (task.renamed) rename(board, task.side, random);
  give(board, below(task.more_givens + 1, random), random);
  return board;
}

/// Of a file's boards, those with too few givens.
void complete(std::vector<SudokuPuzzle>& boards, const Sudoku& task) {
  if (task.givens == 0) return;
  std::mt19937_64 random = random_stream({task.problems.seed, kGivens});
  for (SudokuPuzzle& board : boards) {
    const int64_t given = std::ranges::count_if(board.puzzle, [](int64_t n) { return n != 0; });
    give(board, task.givens - given, random);
  }
}

/// Test, validation, the rest.
std::vector<int64_t> order_of(int64_t count, const Sudoku& task) {
  std::vector<int64_t> order = permutation(count, random_stream({task.problems.seed, kShuffle}));
  if (!task.in_order) return order;
  std::iota(order.begin(), order.end(), 0);
  const int64_t held_out = task.problems.valid + task.problems.test;
  std::rotate(order.begin(), order.end() - held_out, order.end());
  std::rotate(order.begin(), order.begin() + task.problems.valid, order.begin() + held_out);
  return order;
}

/// The boards of which none stands among `seen`.
std::vector<SudokuPuzzle> without(const std::vector<SudokuPuzzle>& boards,
                                  const std::vector<SudokuPuzzle>& seen) {
  std::set<Board> puzzles;
  for (const SudokuPuzzle& board : seen) puzzles.insert(board.puzzle);
  std::vector<SudokuPuzzle> left;
  for (const SudokuPuzzle& board : boards) {
    if (!puzzles.count(board.puzzle)) left.push_back(board);
  }
  return left;
}

ProblemMaker maker(int64_t side) {
  std::vector<std::string> inputs{"."}, answers;
  for (int64_t number = 1; number <= side; ++number) answers.emplace_back(1, kNumbers[number]);
  inputs.insert(inputs.end(), answers.begin(), answers.end());
  return {Sudoku::name, symbols(std::move(inputs)), symbols(std::move(answers)), {}};
}

/// A file with levels: tests, all of them and by level.
Corpus of_levels(const Boards& boards, int64_t side, Corpus corpus) {
  corpus.train = corpus.valid = corpus.test = as_split(boards.puzzles, side);
  std::map<std::string, std::vector<SudokuPuzzle>> by_level;
  std::vector<std::string> names;  // in the order of the file
  for (size_t i = 0; i < boards.puzzles.size(); ++i) {
    auto& level = by_level[boards.levels[i]];
    if (level.empty()) names.push_back(boards.levels[i]);
    level.push_back(boards.puzzles[i]);
  }
  for (const std::string& name : names) {
    const Split split = as_split(by_level[name], side);
    corpus.more.push_back({name, [split] { return split; }});
  }
  return corpus;
}

}  // namespace

std::pair<Vocabulary, Vocabulary> Sudoku::vocabularies() const {
  ProblemMaker made = maker(side);
  return {std::move(made.inputs), std::move(made.answers)};
}

Corpus Sudoku::load(const fs::path& data) const {
  const Corpus corpus = load(data, maker(side).inputs, maker(side).answers);
  DEQ_CHECK(corpus.draw,
            "'{}' has a column 'level': its boards are for tests; expected a file without it to "
            "train on",
            printable(data.string(), 400));
  if (boards > 0 && !data.empty()) {
    const int64_t all = int64_t(read_boards(data, side).puzzles.size());
    const int64_t left = all - problems.valid - problems.test;
    DEQ_CHECK(
        boards <= left,
        "task-boards = {}: of the {} boards of '{}' {} are left to train on; expected no more",
        boards, all, printable(data.string(), 400), left);
  }
  return corpus;
}

Corpus Sudoku::load(const fs::path& data, const Vocabulary& inputs,
                    const Vocabulary& answers) const {
  validate(*this, "Sudoku");
  DEQ_CHECK(side == 4 || side == 9 || side == 16, "task-side = {}; expected 4, 9 or 16", side);
  DEQ_CHECK(givens <= side * side, "task-givens = {}: a board has {} places; expected no more",
            givens, side * side);
  check_vocabularies(maker(side), inputs, answers);
  Corpus corpus;
  corpus.vocabulary = inputs;
  corpus.answers = answers;
  Boards all;
  const int64_t held_out = problems.valid + problems.test;
  if (data.empty()) {
    DEQ_CHECK(problems.pool >= 1,
              "task-pool = 0: there is no end of boards; expected data, or "
              "how many to make");
    DEQ_CHECK(!in_order && boards == 0,
              "task-in-order = {}, task-boards = {}: boards are made, not read; expected data with "
              "them",
              in_order, boards);
    std::mt19937_64 random = random_stream({problems.seed, kBoards, side});
    for (int64_t i = 0; i < held_out + problems.pool; ++i)
      all.puzzles.push_back(make_sudoku(side, random, givens));
  } else {
    all = read_boards(data, side);
    complete(all.puzzles, *this);
    if (!all.levels.empty()) return of_levels(all, side, std::move(corpus));
  }
  const auto count = int64_t(all.puzzles.size());
  DEQ_CHECK(held_out < count,
            "{} boards, of which {} for validation and {} for test leave none to train on", count,
            problems.valid, problems.test);
  std::vector<SudokuPuzzle> ordered;
  for (const int64_t i : order_of(count, *this)) ordered.push_back(all.puzzles[size_t(i)]);
  const auto part = [&](int64_t first, int64_t length) {
    return std::vector<SudokuPuzzle>(ordered.begin() + first, ordered.begin() + first + length);
  };
  const std::vector<SudokuPuzzle> test = part(0, problems.test);
  corpus.test = as_split(test, side);
  corpus.valid = as_split(part(problems.test, problems.valid), side);
  const int64_t left = count - held_out;
  const std::vector<SudokuPuzzle> pool = part(held_out, boards > 0 ? std::min(boards, left) : left);
  const auto unseen = without(test, pool);
  if (in_order && !unseen.empty() && unseen.size() < test.size())
    corpus.more.push_back({"unseen", [split = as_split(unseen, side)] { return split; }});
  corpus.draw = [pool, *this](int64_t epoch) {
    std::mt19937_64 random = random_stream({problems.seed, kEpoch, epoch});
    std::vector<SudokuPuzzle> drawn;
    for (int64_t i = 0; i < problems.train; ++i)
      drawn.push_back(varied(pool[size_t(below(int64_t(pool.size()), random))], *this, random));
    return as_split(drawn, side);
  };
  corpus.train = corpus.draw(0);
  return corpus;
}

}  // namespace deq
