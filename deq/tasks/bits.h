#pragma once

#include "deq/tasks/problems.h"
#include "deq/tasks/written.h"

namespace deq {

/// The copy task of the neural Turing machine (Graves, Wayne, Danihelka 2014, section 4.1): random
/// vectors of bits, an end, and then the same vectors in the blanks. A vector is one symbol, a
/// number whose bits it is; an answer is right where all of its bits are.
struct Bits {
  static constexpr const char* name = "bits";
  static constexpr Unit unit = Unit::Symbol;
  int64_t bits = 8;
  int64_t min_length = 1;
  int64_t length = 20;
  int64_t valid_length = 0;
  std::vector<int64_t> test_lengths = {40, 80, 120};
  ProblemOptions problems;

  static void fields(auto& self, auto&& field) {
    field("bits", self.bits, "of a vector", between(1, 12));
    field("min_length", self.min_length, "vectors of the shortest training problem",
          between(1, 1 << 16));
    field("length", self.length, "of the longest, and of the test set", between(1, 1 << 16));
    field("valid_length", self.valid_length, "of validation problems; 0: as in training",
          between(0, 1 << 16));
    field("test_lengths", self.test_lengths, "of the problems of further test sets");
    field("", self.problems);
  }

  int64_t vectors() const { return int64_t{1} << bits; }  ///< different ones
  /// The vectors, as their bits, the highest first; "_" for a blank, "=" for the end.
  int64_t known_vocabulary() const { return vectors() + 2; }
  std::pair<Vocabulary, Vocabulary> vocabularies() const;
  std::string reading() const { return "bits"; }
  Corpus load(const std::filesystem::path& data) const;
  /// In a run's vocabularies, which must be this task's own.
  Corpus load(const std::filesystem::path& data, const Vocabulary& inputs,
              const Vocabulary& answers) const;

  /// Vectors in a line, spaces between them.
  std::vector<WrittenProblem> read_text(const std::string& text, const std::string& source,
                                        const Vocabulary& inputs) const;
  std::string show(const Shown& shown) const;
  std::string check(const at::Tensor& problem, const at::Tensor& answer) const;
};

}  // namespace deq
