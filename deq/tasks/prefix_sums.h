#pragma once

#include "deq/tasks/problems.h"
#include "deq/tasks/written.h"

namespace deq {

/// Prefix sums (Schwarzschild et al. 2021): L fair bits; at each, the sum of all up to it, modulo
/// 2. Right answers of longer strings need information from further away than any that was seen.
struct PrefixSums {
  static constexpr const char* name = "prefix-sums";
  static constexpr Unit unit = Unit::Symbol;
  int64_t length = 32;
  int64_t valid_length = 0;
  std::vector<int64_t> test_lengths = {64, 128, 256, 512, 2048};
  ProblemOptions problems;

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

  /// Bits side by side.
  std::string show(const Shown& shown) const;
  /// By adding them up.
  std::string check(const at::Tensor& problem, const at::Tensor& answer) const;
};

/// `count` sequences of fair bits, with their sum so far at each, modulo 2.
Split bits_and_sums(int64_t count, int64_t length, std::mt19937_64& random);

}  // namespace deq
