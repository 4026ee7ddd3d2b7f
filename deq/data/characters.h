// Characters: UTF-8 code points of the training split; an unknown one later on is an error.
#pragma once

#include "deq/data/corpus.h"

namespace deq {

struct Characters {
  static constexpr const char* name = "characters";
  static constexpr Unit unit = Unit::Character;
  SplitShares shares;

  static void fields(auto& self, auto&& field) { field("", self.shares); }
  /// `data` is a file, or a folder with the three splits or with input.txt.
  Corpus load(const std::filesystem::path& data) const;
  int64_t known_vocabulary() const { return 0; }
  /// In a run's vocabulary, for evaluating.
  Corpus load(const std::filesystem::path& data, const Vocabulary& vocabulary) const;
};

}  // namespace deq
