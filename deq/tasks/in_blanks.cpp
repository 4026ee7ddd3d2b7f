#include "deq/tasks/in_blanks.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "deq/tasks/problems.h"

namespace deq {

void check_lengths(int64_t least, int64_t length, const std::vector<int64_t>& test_lengths) {
  DEQ_CHECK(least <= length, "task-min-length = {}; expected at most task-length = {}", least,
            length);
  check_sizes("task-test-lengths", test_lengths, 1, 1 << 16);
}

at::Tensor with_blanks(const std::vector<int64_t>& problem, int64_t answers,
                       const BlankSymbols& symbols) {
  std::vector<int64_t> ids = problem;
  ids.push_back(symbols.end);
  ids.insert(ids.end(), size_t(answers), symbols.blank);
  return at::tensor(ids, at::kLong);
}

Split answered_in_blanks(const std::vector<Stated>& stated, const BlankSymbols& symbols) {
  const auto length = [](const Stated& one) {
    return int64_t(one.problem.size() + 1 + one.answer.size());
  };
  const auto count = int64_t(stated.size());
  int64_t longest = 0, shortest = count > 0 ? length(stated[0]) : 0;
  for (const Stated& one : stated) {
    longest = std::max(longest, length(one));
    shortest = std::min(shortest, length(one));
  }
  Split split{.tokens = at::full({count, longest}, symbols.blank, at::kLong),
              .targets = at::full({count, longest}, -1, at::kLong),
              .answer = kEveryPosition};
  if (shortest < longest) split.extents = at::empty({count, 1}, at::kLong);
  for (int64_t s = 0; s < count; ++s) {
    const Stated& one = stated[size_t(s)];
    int64_t* token = split.tokens.data_ptr<int64_t>() + s * longest;
    int64_t* target = split.targets.data_ptr<int64_t>() + s * longest;
    *std::copy(one.problem.begin(), one.problem.end(), token) = symbols.end;
    std::copy(one.answer.begin(), one.answer.end(), target + one.problem.size() + 1);
    if (shortest < longest) split.extents.data_ptr<int64_t>()[s] = length(one);
  }
  return split;
}

std::vector<int64_t> before_end(const at::Tensor& problem, const BlankSymbols& symbols) {
  const at::Tensor held = problem.contiguous();
  const auto* first = held.data_ptr<int64_t>();
  return {first, std::find(first, first + held.numel(), symbols.end)};
}

std::vector<int64_t> in_blanks(const at::Tensor& problem, const at::Tensor& answer,
                               const BlankSymbols& symbols) {
  const int64_t first = int64_t(before_end(problem, symbols).size()) + 1;
  const at::Tensor held = answer.contiguous();
  const auto* all = held.data_ptr<int64_t>();
  return {all + std::min(first, held.numel()), all + held.numel()};
}

std::string first_difference(const at::Tensor& problem, const at::Tensor& answer,
                             const std::vector<int64_t>& right, const BlankSymbols& symbols) {
  const std::vector<int64_t> own = in_blanks(problem, answer, symbols);
  if (own.size() != right.size())
    return fmt::format("an answer of {} symbols; expected {}", own.size(), right.size());
  const auto [at, expected] = std::mismatch(own.begin(), own.end(), right.begin());
  if (at == own.end()) return "";
  return fmt::format("another symbol at place {} of the answer", at - own.begin() + 1);
}

}  // namespace deq
