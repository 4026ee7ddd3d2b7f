#pragma once

#include "deq/tasks/problems.h"
#include "deq/tasks/written.h"

namespace deq {

/// What is done with a string, or with two numbers.
enum class StringOperation { Copy, Reverse, Add, Multiply, Sort };
template <>
struct Names<StringOperation> {
  static constexpr const char* values[] = {"copy", "reverse", "add", "multiply", "sort"};
};

/// Algorithms on strings (Kaiser and Sutskever 2016; Dehghani et al. 2019): symbols, each as
/// likely, then "=" and a blank for each symbol of the answer, which is scored there alone. Of n
/// symbols the answer has n; of two numbers of n digits each the sum has n + 1 and the product 2 n,
/// leading zeros included. A model reads and answers numbers from the last digit on; a person
/// writes and sees them from the first.
struct Strings {
  static constexpr const char* name = "strings";
  static constexpr Unit unit = Unit::Symbol;
  StringOperation operation = StringOperation::Copy;
  int64_t symbols = 10;
  int64_t min_length = 1;
  int64_t length = 20;
  int64_t valid_length = 0;
  std::vector<int64_t> test_lengths = {40, 80};
  ProblemOptions problems;

  static void fields(auto& self, auto&& field) {
    field("operation", self.operation, "what the answer is of the string, or of two numbers");
    field("symbols", self.symbols, "different ones; of numbers, the base", between(2, 36));
    field("min_length", self.min_length, "symbols, or digits, of the shortest training problem",
          between(1, 1 << 16));
    field("length", self.length, "of the longest, and of the test set", between(1, 1 << 16));
    field("valid_length", self.valid_length, "of validation problems; 0: as in training",
          between(0, 1 << 16));
    field("test_lengths", self.test_lengths, "of the problems of further test sets");
    field("", self.problems);
  }

  bool of_numbers() const {
    return operation == StringOperation::Add || operation == StringOperation::Multiply;
  }
  /// The symbols, "_" for a blank, "=", and for numbers "+" or "*".
  int64_t known_vocabulary() const { return symbols + 2 + of_numbers(); }
  std::pair<Vocabulary, Vocabulary> vocabularies() const;
  Corpus load(const std::filesystem::path& data) const;
  /// In a run's vocabularies, which must be this task's own.
  Corpus load(const std::filesystem::path& data, const Vocabulary& inputs,
              const Vocabulary& answers) const;

  /// A string in a line, "12+345" of numbers, with or without "=" behind it. Throws deq::Error,
  /// with source and line, for a symbol that is not among those of the run, and for what is not two
  /// numbers.
  std::vector<WrittenProblem> read_text(const std::string& text, const std::string& source,
                                        const Vocabulary& inputs) const;
  /// The string, or what stands in the blanks.
  std::string show(const Shown& shown) const;
  /// By doing it.
  std::string check(const at::Tensor& problem, const at::Tensor& answer) const;
};

/// The digits of a + b, n + 1 of them, and of a * b, 2 n, of numbers of n digits each, the last
/// digit first.
std::vector<int64_t> sum_of(const std::vector<int64_t>& a, const std::vector<int64_t>& b,
                            int64_t base);
std::vector<int64_t> product_of(const std::vector<int64_t>& a, const std::vector<int64_t>& b,
                                int64_t base);

}  // namespace deq
