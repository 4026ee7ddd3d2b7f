#pragma once

#include "deq/tasks/problems.h"

namespace deq {

/// The groups: all and the even permutations of five points, the cyclic group of 60, and A4 x Z5
/// of as many elements. S5 and A5 are not solvable: no fixed number of parallel steps multiplies
/// them (Barrington 1989; Merrill, Petty, Sabharwal 2024).
enum class Group { S5, A5, Z60, A4xZ5 };
template <>
struct Names<Group> {
  static constexpr const char* values[] = {"s5", "a5", "z60", "a4xz5"};
};

/// A group as permutations of a few points, (elements, points); the first is the identity.
std::vector<std::vector<int64_t>> elements_of(Group group);

/// The word problem of a group: elements, each as likely; at each position the product of all up to
/// it, the first applied first.
struct WordProblem {
  static constexpr const char* name = "word-problem";
  static constexpr Unit unit = Unit::Symbol;
  Group group = Group::S5;
  int64_t min_length = 2;
  int64_t length = 32;
  int64_t valid_length = 0;
  std::vector<int64_t> test_lengths = {64, 128, 512};
  ProblemOptions problems;

  static void fields(auto& self, auto&& field) {
    field("group", self.group, "whose elements are multiplied");
    field("min_length", self.min_length, "elements of the shortest training problem",
          between(1, 1 << 20));
    field("length", self.length, "elements of the longest, and of the test set",
          between(1, 1 << 20));
    field("valid_length", self.valid_length, "elements of validation problems; 0: as in training",
          between(0, 1 << 20));
    field("test_lengths", self.test_lengths, "elements of the problems of further test sets");
    field("", self.problems);
  }

  int64_t known_vocabulary() const { return int64_t(elements_of(group).size()); }
  Corpus load(const std::filesystem::path& data) const;
  /// In a run's vocabularies, which must be this task's own.
  Corpus load(const std::filesystem::path& data, const Vocabulary& inputs,
              const Vocabulary& answers) const;

  /// By the permutations of the points.
  std::string check(const at::Tensor& problem, const at::Tensor& answer) const;
};

}  // namespace deq
