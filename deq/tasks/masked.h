#pragma once

#include "deq/data/corpus.h"
#include "deq/tasks/problems.h"
#include "deq/tasks/written.h"

namespace deq {

/// Pieces of a text with holes, and what stood there (a cloze; masked language models: Devlin et
/// al. 2019): each character of a hole is replaced by the symbol `<hole>`, and it alone is scored.
///
/// In training, validation and test a share of each piece between `least` and `most`, as likely,
/// is holes, of 1 to `longest` characters each. Further test sets have holes of one length, named
/// by it, together about 15% of each piece. Pieces are of the text's own parts: its end is held
/// out.
///
/// A share `ends` of the pieces are prefixes instead, of lengths evenly spread from 1 to
/// length - 1, 64 of each, and one hole, behind which nothing stands. They are the test set `next`
/// too. What is asked for is never in sight of what answers, whatever sees what.
struct Masked {
  static constexpr const char* name = "masked";
  static constexpr Unit unit = Unit::Symbol;
  int64_t length = 128;
  double least = 0.15;
  double most = 0.5;
  int64_t longest = 16;
  double ends = 0;
  std::vector<int64_t> holes = {1, 4, 16};
  SplitShares shares;
  ProblemOptions problems;

  static void fields(auto& self, auto&& field) {
    field("length", self.length, "characters of a piece", between(2, 1 << 20));
    field("least", self.least, "share of a piece that is holes at least", left_open(0, 1));
    field("most", self.most, "and at most", left_open(0, 1));
    field("longest", self.longest, "characters of a hole at most, but for further test sets",
          at_least(1));
    field("ends", self.ends, "share of the pieces that are prefixes, whose next character is asked",
          between(0.0, 1.0));
    field("holes", self.holes, "characters of the holes of further test sets");
    field("", self.shares);
    field("", self.problems);
  }

  int64_t known_vocabulary() const { return 0; }
  /// `data` as of task characters. Throws deq::Error for a part of it that is shorter than a piece,
  /// for least > most, and for holes longer than a piece.
  Corpus load(const std::filesystem::path& data) const;
  /// In a run's vocabularies, for evaluating.
  Corpus load(const std::filesystem::path& data, const Vocabulary& inputs,
              const Vocabulary& answers) const;

  /// Each line is a text, whose underscores are holes. Throws deq::Error, with source and line, for
  /// a character that the inputs lack, and for a line without a hole.
  std::vector<WrittenProblem> read_text(std::string_view text, const std::string& source,
                                        const Vocabulary& inputs) const;
  /// The text, with the answer's characters in its holes; or underscores.
  std::string show(const Shown& shown) const;
};

/// The id of the symbol that stands for a character that is not known. Throws deq::Error where a
/// vocabulary has none.
int64_t hole_of(const Vocabulary& inputs);

}  // namespace deq
