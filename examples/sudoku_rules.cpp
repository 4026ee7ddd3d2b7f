// Sudoku from its rules alone, without training: the program that OptNet learns (Amos and Kolter
// 2017), with the equalities that it should find. y is 1 where a symbol stands at a place:
//
//   minimise 0.05 |y|^2 - x'y   where each place has one symbol, each row, column and box has
//                               each symbol once, and y >= 0;   x is 1 where a symbol is given.
//
//   sudoku_rules [FILE SIDE TEST]     the last TEST (1000) of its boards, 4 a side; without a
//                                     file of 50 that are made
//
// Prints how many boards are wrong, and exits with 1 where any are.
#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <ctime>
#include <string>

#include "deq/layers/quadratic_program.h"
#include "deq/tasks/sudoku.h"

namespace {

using at::Tensor;
constexpr int64_t kBatch = 100;
constexpr double kPenalty = 0.1;

/// (4 side^2, side^3), a row for each sum that is 1.
Tensor rules_of(int64_t side) {
  const int64_t places = side * side, box = side == 4 ? 2 : side == 9 ? 3 : 4;
  const Tensor A = at::zeros({4 * places, places * side}, at::kDouble);
  auto sum = A.accessor<double, 2>();
  for (int64_t place = 0; place < places; ++place) {
    const int64_t row = place / side, column = place % side;
    const int64_t groups[] = {row, side + column, 2 * side + row / box * box + column / box};
    for (int64_t symbol = 0; symbol < side; ++symbol) {
      const int64_t y = place * side + symbol;
      sum[place][y] = 1;
      for (const int64_t group : groups) sum[places + group * side + symbol][y] = 1;
    }
  }
  return A;
}

}  // namespace

int main(int argc, char** argv) try {
  const int64_t side = argc > 2 ? std::stoll(argv[2]) : 4;
  const deq::Sudoku task{.side = side,
                         .in_order = argc > 1,
                         .problems = {.train = 1,
                                      .pool = 1,
                                      .valid = 1,
                                      .test = argc > 3   ? std::stoll(argv[3])
                                              : argc > 1 ? 1000
                                                         : 50}};
  const deq::Split boards = task.load(argc > 1 ? argv[1] : "").test;
  const int64_t count = boards.tokens.size(0), n = side * side * side;
  const Tensor tokens = boards.tokens.view({count, side * side, 1});
  const Tensor given = tokens.eq(at::arange(1, side + 1)).to(at::kDouble).view({count, n});
  const Tensor A = rules_of(side), eye = at::eye(n, at::kDouble);

  const c10::AutoGradMode no_tape(false);
  const std::clock_t begin = std::clock();
  int64_t wrong = 0, unsolved = 0;
  for (int64_t from = 0; from < count; from += kBatch) {
    const int64_t rows = std::min(kBatch, count - from);
    const deq::Optimum found = deq::minimise({.Q = kPenalty * eye,
                                              .q = -given.narrow(0, from, rows),
                                              .A = A,
                                              .b = at::ones({A.size(0)}, at::kDouble),
                                              .G = -eye,
                                              .h = at::zeros({n}, at::kDouble)});
    const Tensor answer = found.z.view({rows, side, side, side}).argmax(3);
    const Tensor right = answer.eq(boards.targets.narrow(0, from, rows)).flatten(1).all(1);
    wrong += rows - right.sum().item<int64_t>();
    unsolved += rows - found.report.count(deq::Reason::Converged);
  }
  fmt::print("{} of {} boards wrong, {} programs not solved, {:.1f} s\n", wrong, count, unsolved,
             double(std::clock() - begin) / CLOCKS_PER_SEC);
  return wrong > 0;
} catch (const std::exception& error) {
  fmt::print(stderr, "error: {}\n", error.what());
  return 2;
}
