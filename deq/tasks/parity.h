#pragma once

#include "deq/tasks/problems.h"
#include "deq/tasks/written.h"

namespace deq {

/// Parity of L fair bits from one bit of supervision (Wang, Donti, Wilder and Kolter 2019, section
/// 4.1): the last place alone is scored, and there the answer is the sum of all bits modulo 2.
/// Trained on the same `pool` of problems again and again, as published.
struct Parity {
  static constexpr const char* name = "parity";
  static constexpr Unit unit = Unit::Symbol;
  int64_t length = 20;
  int64_t valid_length = 0;
  std::vector<int64_t> test_lengths = {40};
  ProblemOptions problems{.train = 9000, .pool = 9000};

  static void fields(auto& self, auto&& field) {
    field("length", self.length, "bits of a training problem", between(1, 1 << 20));
    field("valid_length", self.valid_length, "bits of validation problems; 0: as in training",
          between(0, 1 << 20));
    field("test_lengths", self.test_lengths, "bits of the problems of further test sets");
    field("", self.problems);
  }

  int64_t known_vocabulary() const { return 2; }
  Corpus load(const std::filesystem::path& data) const;
  /// In a run's vocabularies, which must be this task's own.
  Corpus load(const std::filesystem::path& data, const Vocabulary& inputs,
              const Vocabulary& answers) const;

  /// Bits side by side; of an answer the one.
  std::string show(const Shown& shown) const;
  /// By adding them up.
  std::string check(const at::Tensor& problem, const at::Tensor& answer) const;
};

}  // namespace deq
