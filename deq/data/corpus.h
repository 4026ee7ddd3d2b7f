// Three splits of token ids and the vocabulary that names them; what every task loads.
#pragma once

#include <ATen/ATen.h>

#include <filesystem>
#include <string>

#include "deq/data/vocabulary.h"

namespace deq {

/// A running text, whose targets are its own tokens one position later; or sequences that stand
/// alone, with the target of each position.
struct Split {
  at::Tensor tokens;   ///< (N,) int64, N >= 2; of sequences (S, L)
  at::Tensor targets;  ///< undefined; of sequences (S, L) int64, -1 where a position is not scored
  int64_t answer = 0;  ///< last positions of each sequence that hold its answer; 0: none do

  bool sequences() const { return targets.defined(); }
};

/// The first tokens, or sequences; all where `count` is 0 or more than there are.
Split beginning(Split split, int64_t count);

/// Three splits in the ids of one vocabulary.
struct Corpus {
  Vocabulary vocabulary;
  Split train, valid, test;
};

/// What of a single file is held out: its end for the test, what stands before that for validation.
struct SplitShares {
  double valid = 0.05;
  double test = 0.05;

  static void fields(auto& self, auto&& field) {
    field("valid_share", self.valid, "share of a single file for validation", left_open(0, 0.5));
    field("test_share", self.test, "share of a single file for the test: its end",
          left_open(0, 0.5));
  }
};

/// Where the splits stand: three files, or consecutive parts of one file.
struct SplitFiles {
  std::filesystem::path train, valid, test;
  bool single() const { return train == test; }
};
/// The files of `data` by the names that PTB, WikiText-2 and WikiText-103 are distributed under;
/// with `single_file`, `data` may also be one file, or a folder with input.txt. Throws deq::Error,
/// with what was looked for, also where `data` is empty.
SplitFiles find_splits(const std::filesystem::path& data, bool single_file);

/// How a vocabulary is made from a training split: ids in order of falling frequency (as an
/// adaptive softmax needs them), ties in order of first appearance. What is seen less than
/// `min_count` times becomes `<unk>`, which the list then has even if nothing was.
struct VocabularyRule {
  Unit unit = Unit::Word;
  int64_t min_count = 1;
};

/// Three texts. Reads each file once. The vocabulary is `given`, or else made from the training
/// split alone.
Corpus load_corpus(const SplitFiles& files, const SplitShares& shares, const VocabularyRule& rule,
                   const Vocabulary* given = nullptr);

/// The whole of one file in a run's vocabulary, (tokens,) int64.
at::Tensor load_tokens(const std::filesystem::path& file, const Vocabulary& vocabulary);

}  // namespace deq
