// Splits of token ids and the vocabulary that names them; what every task loads.
#pragma once

#include <ATen/ATen.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "deq/data/batch.h"
#include "deq/data/scoring.h"
#include "deq/data/vocabulary.h"

namespace deq {

/// A running text, whose targets are its own tokens one position later; or problems that stand
/// alone, sequences or grids, with the target of each position.
struct Split {
  at::Tensor tokens;   ///< (N,) int64, N >= 2; of problems (S, L) or (S, H, W), or uint8
  at::Tensor targets;  ///< undefined; of problems as tokens, or int8; -1: it is not scored
  int64_t answer = 0;  ///< last positions of each that hold its answer, or all; 0: none do
  /// How much of its row each problem fills, (S, 1) or (S, 2) int64: what stands behind is not
  /// read. Undefined: all of it.
  at::Tensor extents = {};
  std::shared_ptr<const Scoring> scoring = {};  ///< of real values; null: the loss says all

  bool sequences() const { return targets.defined(); }
};

/// The first tokens, or sequences; all where `count` is 0 or more than there are.
Split beginning(Split split, int64_t count);

/// One of the splits, made or read when it is asked for.
struct NamedSplit {
  std::string name;
  std::function<Split()> make;
};

/// Splits in the ids of one vocabulary, or of two.
struct Corpus {
  Vocabulary vocabulary;
  Split train, valid, test;
  std::vector<NamedSplit> more = {};       ///< further test sets
  std::optional<Vocabulary> answers = {};  ///< of targets, where it is not `vocabulary`
  /// The training split of epoch 0, 1, ...: `train` is that of epoch 0. Empty: the same in each.
  std::function<Split(int64_t epoch)> draw = {};

  const Vocabulary& answer_vocabulary() const { return answers ? *answers : vocabulary; }
  /// "train", "valid", "test", and the names of `more`.
  std::vector<std::string> splits() const;
  /// Throws deq::Error, with the names that there are, for another.
  Split split(const std::string& name) const;
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
