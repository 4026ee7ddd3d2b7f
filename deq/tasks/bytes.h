#pragma once

#include "deq/data/corpus.h"

namespace deq {

/// Bytes: any file, text8 and enwik8 among them; 256 tokens, no vocabulary to learn.
struct Bytes {
  static constexpr const char* name = "bytes";
  static constexpr Unit unit = Unit::Byte;
  SplitShares shares;

  static void fields(auto& self, auto&& field) { field("", self.shares); }
  int64_t known_vocabulary() const { return 256; }
  /// `data` is a file, or a folder with the three splits or with input.txt.
  Corpus load(const std::filesystem::path& data) const;
  Corpus load(const std::filesystem::path& data, const Vocabulary& vocabulary) const;
};

}  // namespace deq
