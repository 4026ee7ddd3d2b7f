#include "deq/tasks/word_problem.h"

#include <map>
#include <set>

namespace deq {
namespace {

using Permutation = std::vector<int64_t>;

/// First `a`, then `b`.
Permutation after(const Permutation& a, const Permutation& b) {
  Permutation product(a.size());
  for (size_t i = 0; i < a.size(); ++i) product[i] = b[size_t(a[i])];
  return product;
}

/// Of `points`, in cycles.
Permutation cycles(int64_t points, const std::vector<std::vector<int64_t>>& cycles) {
  Permutation permutation(size_t(points), 0);
  for (int64_t i = 0; i < points; ++i) permutation[size_t(i)] = i;
  for (const auto& cycle : cycles) {
    for (size_t i = 0; i < cycle.size(); ++i)
      permutation[size_t(cycle[i])] = cycle[(i + 1) % cycle.size()];
  }
  return permutation;
}

std::vector<Permutation> generators(Group group) {
  switch (group) {
    case Group::S5:
      return {cycles(5, {{0, 1}}), cycles(5, {{0, 1, 2, 3, 4}})};
    case Group::A5:
      return {cycles(5, {{0, 1, 2}}), cycles(5, {{0, 1, 2, 3, 4}})};
    case Group::Z60:  // 3 + 4 + 5 points
      return {cycles(12, {{0, 1, 2}, {3, 4, 5, 6}, {7, 8, 9, 10, 11}})};
    case Group::A4xZ5:
      return {cycles(9, {{0, 1, 2}}), cycles(9, {{1, 2, 3}}), cycles(9, {{4, 5, 6, 7, 8}})};
  }
  return {};
}

/// i * j: first element i, then j.
std::vector<std::vector<int64_t>> table_of(const std::vector<Permutation>& elements) {
  std::map<Permutation, int64_t> number;
  for (size_t i = 0; i < elements.size(); ++i) number[elements[i]] = int64_t(i);
  std::vector<std::vector<int64_t>> table;
  for (const Permutation& a : elements) {
    table.emplace_back();
    for (const Permutation& b : elements) table.back().push_back(number.at(after(a, b)));
  }
  return table;
}

/// Problem s has min + s mod (max - min + 1) elements.
Split words(const std::vector<std::vector<int64_t>>& table, int64_t count, int64_t min, int64_t max,
            std::mt19937_64& random) {
  Split split{.tokens = at::zeros({count, max}, at::kLong),
              .targets = at::full({count, max}, -1, at::kLong),
              .answer = kEveryPosition};
  if (min < max) split.extents = at::empty({count, 1}, at::kLong);
  auto tokens = split.tokens.accessor<int64_t, 2>(), targets = split.targets.accessor<int64_t, 2>();
  for (int64_t s = 0; s < count; ++s) {
    const int64_t length = min + s % (max - min + 1);
    if (min < max) split.extents[s][0] = length;
    int64_t product = 0;
    for (int64_t t = 0; t < length; ++t) {
      tokens[s][t] = below(int64_t(table.size()), random);
      targets[s][t] = product = table[size_t(product)][size_t(tokens[s][t])];
    }
  }
  return split;
}

/// Elements by the images of their points: "0 1 2 3 4" is "01234".
Vocabulary named(const std::vector<Permutation>& elements) {
  constexpr const char* kPoints = "0123456789ab";
  std::vector<std::string> tokens;
  for (const Permutation& element : elements) {
    tokens.emplace_back();
    for (const int64_t point : element) tokens.back().push_back(kPoints[point]);
  }
  return symbols(std::move(tokens));
}

ProblemMaker maker(const WordProblem& task) {
  const auto elements = elements_of(task.group);
  const auto table = table_of(elements);
  const auto whole = [table](int64_t count, int64_t length, std::mt19937_64& random) {
    return words(table, count, length, length, random);
  };
  const auto training = [table, min = task.min_length](int64_t count, int64_t length,
                                                       std::mt19937_64& random) {
    return words(table, count, min, length, random);
  };
  return {WordProblem::name, named(elements), named(elements), whole, training};
}

}  // namespace

std::vector<std::vector<int64_t>> elements_of(Group group) {
  const std::vector<Permutation> by = generators(group);
  const Permutation identity = cycles(int64_t(by[0].size()), {});
  std::set<Permutation> found{identity};
  std::vector<Permutation> open{identity};
  while (!open.empty()) {
    const Permutation element = open.back();
    open.pop_back();
    for (const Permutation& generator : by) {
      const Permutation product = after(element, generator);
      if (found.insert(product).second) open.push_back(product);
    }
  }
  return {found.begin(), found.end()};  // in order: the identity is the least
}

Corpus WordProblem::load(const std::filesystem::path& data) const {
  validate(*this, "WordProblem");
  DEQ_CHECK(min_length <= length, "task-min-length = {}; expected at most task-length = {}",
            min_length, length);
  check_sizes("task-test-lengths", test_lengths, 1, 1 << 20);
  return make_problems(maker(*this), problems, {length, valid_length, test_lengths}, data);
}

Corpus WordProblem::load(const std::filesystem::path& data, const Vocabulary& inputs,
                         const Vocabulary& answers) const {
  check_vocabularies(maker(*this), inputs, answers);
  return load(data);
}

std::string WordProblem::check(const at::Tensor& problem, const at::Tensor& answer) const {
  const std::vector<Permutation> elements = elements_of(group);
  const auto factor = problem.accessor<int64_t, 1>(), products = answer.accessor<int64_t, 1>();
  Permutation product = elements.front();  // the identity
  for (int64_t t = 0; t < factor.size(0); ++t) {
    product = after(product, elements[size_t(factor[t])]);
    if (products[t] < 0 || elements[size_t(products[t])] != product)
      return fmt::format("another product at position {}", t + 1);
  }
  return "";
}

}  // namespace deq
