// Characters: UTF-8 code points of the training split.
#pragma once

#include "deq/data/corpus.h"

namespace deq {

/// A character that the training split lacks is an error, or with `min_count` above 1 the token
/// `<unk>`, whose meaning is learned from the rare ones.
struct Characters {
  static constexpr const char* name = "characters";
  static constexpr Unit unit = Unit::Character;
  SplitShares shares;
  int64_t min_count = 1;

  static void fields(auto& self, auto&& field) {
    field("", self.shares);
    field("min_count", self.min_count,
          "characters seen less often in the training split, or only later, become <unk>; 1: none",
          at_least(1));
  }
  /// `data` is a file, or a folder with the three splits or with input.txt.
  Corpus load(const std::filesystem::path& data) const;
  int64_t known_vocabulary() const { return 0; }
  /// In a run's vocabulary, for evaluating.
  Corpus load(const std::filesystem::path& data, const Vocabulary& vocabulary) const;
};

}  // namespace deq
