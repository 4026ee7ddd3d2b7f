#pragma once

#include "deq/data/corpus.h"

namespace deq {

/// A user's own problems: lines of a problem, a tab and its answer, symbols between spaces, one in
/// the answer for each in the problem; `_` in an answer: not scored. A grid is its rows joined by
/// '/'.
///
/// `data` is a file, whose end is held out, or a folder with train.tsv, valid.tsv and test.tsv;
/// others (*.tsv) are further test sets, by their names. The vocabularies, of problems and of
/// answers, are made from the training problems alone, by falling frequency.
struct Pairs {
  static constexpr const char* name = "pairs";
  static constexpr Unit unit = Unit::Symbol;
  int64_t dimensions = 1;
  SplitShares shares;

  static void fields(auto& self, auto&& field) {
    field("dimensions", self.dimensions, "1: problems are sequences; 2: grids", between(1, 2));
    field("", self.shares);
  }

  int64_t known_vocabulary() const { return 0; }
  /// Throws deq::Error, with file and line, for what is not two columns or not UTF-8, an answer of
  /// another shape than its problem or without a symbol, rows that are not of one length, a grid
  /// among sequences and the reverse, and a symbol that the training problems lack.
  Corpus load(const std::filesystem::path& data) const;
  /// In a run's vocabularies, for evaluating. One file is besides the test set "all", whole.
  Corpus load(const std::filesystem::path& data, const Vocabulary& inputs,
              const Vocabulary& answers) const;
};

}  // namespace deq
