// Sudoku as people write it, and the check of an answer.
#include <ATen/ATen.h>

#include <algorithm>
#include <set>
#include <tuple>

#include "deq/tasks/sudoku.h"

namespace deq {
namespace {

constexpr std::string_view kDrawn = " \t|/-+=";  // what boards are drawn with
constexpr std::string_view kBlanks = "0_";       // and '.', as in the vocabulary

/// n of n * n places; 0 where that is no board.
int64_t side_of(size_t places) {
  for (const int64_t side : {4, 9, 16}) {
    if (int64_t(places) == side * side) return side;
  }
  return 0;
}

/// A row of a board, or a whole one.
struct Line {
  std::string places;
  int64_t number;  // of the text
};

/// Without what is only drawn; lines that are nothing else are left out.
std::vector<Line> bare(const LineBlock& block) {
  std::vector<Line> found;
  int64_t number = block.line;
  for (const std::string_view line : block.lines) {
    std::string places;
    for (const char each : line) {
      if (kDrawn.find(each) == std::string_view::npos)
        places += kBlanks.find(each) == std::string_view::npos ? each : '.';
    }
    if (!places.empty()) found.push_back({std::move(places), number});
    ++number;
  }
  return found;
}

/// Whether the lines are the rows of one board. A board of 16 a side has rows as long as a board of
/// 4 a side: what the task is of decides.
bool are_rows(const std::vector<Line>& lines, int64_t side) {
  const auto n = int64_t(lines.size());
  if (n != 4 && n != 9 && n != side) return false;
  if (n == 9 && side == 4) return false;
  const size_t first = lines.front().places.size();
  return first < 16 || (n == 16 && first == 16);
}

std::string draw(const at::Tensor& board, const Vocabulary& vocabulary) {
  const int64_t side = board.size(0), box = side == 4 ? 2 : side == 9 ? 3 : 4;
  std::string bar, text;
  for (int64_t i = 0; i < box; ++i)
    bar += (i > 0 ? "+" : "") + std::string(size_t(2 * box + (i > 0 && i + 1 < box)), '-');
  for (int64_t row = 0; row < side; ++row) {
    if (row > 0) text += row % box == 0 ? "\n" + bar + "\n" : "\n";
    for (int64_t column = 0; column < side; ++column) {
      if (column > 0) text += column % box == 0 ? " | " : " ";
      text += write_symbols(board[row].narrow(0, column, 1), vocabulary);
    }
  }
  return text;
}

}  // namespace

std::vector<WrittenProblem> Sudoku::read_text(const std::string& text, const std::string& source,
                                              const Vocabulary& inputs) const {
  std::vector<WrittenProblem> problems;
  const auto add = [&](const std::vector<int64_t>& ids, int64_t line) {
    const int64_t n = side_of(ids.size());
    check_sudoku(ids, at_line(source, line));
    problems.push_back({at::tensor(ids, at::kLong).view({n, n}), line});
  };
  for (const LineBlock& block : line_blocks(text)) {
    const std::vector<Line> lines = bare(block);
    if (lines.empty()) continue;
    const bool rows = are_rows(lines, side);
    std::vector<int64_t> board;
    for (const Line& line : lines) {
      const std::string where = at_line(source, line.number);
      const auto ids = read_symbols(line.places, inputs, where);
      if (rows) {
        DEQ_CHECK(ids.size() == lines.size(), "{}: a row of {} places; expected {}", where,
                  ids.size(), lines.size());
        board.insert(board.end(), ids.begin(), ids.end());
      } else {
        DEQ_CHECK(side_of(ids.size()) > 0,
                  "{}: {} places; expected a board of {} in a line, or one of {} lines", where,
                  ids.size(), side * side, side);
        add(ids, line.number);
      }
    }
    if (rows) add(board, lines.front().number);
  }
  DEQ_CHECK(!problems.empty(), "{}: no puzzle; expected one at least", source);
  return problems;
}

std::string Sudoku::show(const Shown& shown) const {
  const bool own = shown.answer.defined();
  const at::Tensor& board = own ? shown.answer : shown.problem;
  const Vocabulary& vocabulary = own ? shown.answers : shown.inputs;
  if (shown.picture) return draw(board, vocabulary);
  return write_symbols(board, vocabulary, {.symbols = "", .rows = ""});
}

std::string Sudoku::check(const at::Tensor& problem, const at::Tensor& answer) const {
  const auto given = problem.accessor<int64_t, 2>(), number = answer.accessor<int64_t, 2>();
  const int64_t n = problem.size(0), box = n == 4 ? 2 : n == 9 ? 3 : 4;
  std::set<std::tuple<std::string, int64_t, int64_t>> seen;
  for (int64_t i = 0; i < n * n; ++i) {
    const int64_t row = i / n, column = i % n, own = number[row][column] + 1;
    if (own < 1 || own > n)
      return fmt::format("no number in row {}, column {}", row + 1, column + 1);
    if (given[row][column] != 0 && given[row][column] != own)
      return fmt::format("another number than is given in row {}, column {}", row + 1, column + 1);
    for (const auto& [group, index] :
         {std::pair{"row", row}, {"column", column}, {"box", row / box * box + column / box}}) {
      if (!seen.insert({group, index, own}).second)
        return fmt::format("{} {} has a number twice", group, index + 1);
    }
  }
  return "";
}

}  // namespace deq
