#pragma once

#include "deq/tasks/problems.h"
#include "deq/tasks/written.h"

namespace deq {

/// ListOps (Nangia and Bowman 2018): nested operations on digits, `[MAX 2 9 [MIN 4 7 ] 0 ]`, whose
/// value is a digit again. [MED is the median, rounded down, [SM the sum modulo 10. The answer
/// stands at the last symbol; with `every`, at each closing bracket the value of what it closes.
///
/// Expressions that are made have the published shape, 2 to 5 arguments of which a quarter are
/// operations, at a given depth (of a digit 0, of an operation on digits 1) and as long as there is
/// room for; "_" stands behind those that do not fill their batch's.
struct ListOps {
  static constexpr const char* name = "listops";
  static constexpr Unit unit = Unit::Symbol;
  enum Symbol : int64_t { Min = 10, Max, Med, Sm, Close, Blank };  ///< behind the digits
  int64_t depth = 6;
  int64_t length = 128;
  bool every = false;
  int64_t valid_depth = 0;
  std::vector<int64_t> test_depths = {8, 10, 15};
  ProblemOptions problems;

  static void fields(auto& self, auto&& field) {
    field("depth", self.depth, "of training expressions at most, and of the test set",
          between(1, 1000));
    field("length", self.length,
          "symbols of training expressions at most; of further test sets four times as many",
          between(4, 1 << 16));
    field("every", self.every, "a value at every closing bracket, not only at the last symbol");
    field("valid_depth", self.valid_depth, "of validation expressions; 0: as in training",
          between(0, 1000));
    field("test_depths", self.test_depths, "of the expressions of further test sets");
    field("", self.problems);
  }

  int64_t known_vocabulary() const { return Blank + 1; }
  std::pair<Vocabulary, Vocabulary> vocabularies() const;
  /// Makes expressions. Throws deq::Error where `data` is not empty: a file is held out.
  Corpus load(const std::filesystem::path& data) const;
  /// In a run's vocabularies, which must be this task's own. `data` is a file of lines of a value,
  /// a tab and an expression, as published, with or without the parentheses of its binary tree: all
  /// of it is each of the splits, and a test set for each depth. Throws deq::Error, with file, line
  /// and column, for an expression that does not parse, and for a value that is not its own.
  Corpus load(const std::filesystem::path& data, const Vocabulary& inputs,
              const Vocabulary& answers) const;

  /// An expression a line, with or without parentheses. Throws deq::Error, with source, line and
  /// column, for one that does not parse.
  std::vector<WrittenProblem> read_text(const std::string& text, const std::string& source,
                                        const Vocabulary& inputs) const;
  /// The value; with `every`, each bracket's, in their order.
  std::string show(const Shown& shown) const;
  std::string check(const at::Tensor& problem, const at::Tensor& answer) const;
};

/// What an expression says, place by place.
struct ListOpsValues {
  std::vector<int64_t> at;  ///< the value of what ends at a place; -1: nothing does, or a digit
  int64_t value = 0;        ///< of the whole
  int64_t depth = 0;
};
/// Of one expression without blanks. Throws deq::Error for what is none, which begins with what
/// `place` says of the symbol where that shows, from 0; by default "symbol 1" of the first.
ListOpsValues evaluate_listops(const std::vector<int64_t>& symbols,
                               const std::function<std::string(size_t symbol)>& place = {});

}  // namespace deq
