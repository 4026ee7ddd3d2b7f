// Words: Penn Treebank, WikiText-2, WikiText-103, or any folder of the same shape.
#pragma once

#include "deq/data/corpus.h"

namespace deq {

/// Words between white space, `<eos>` at the end of every line, empty lines included: so the
/// published token counts come out, and perplexities compare with those in papers.
struct Words {
  static constexpr const char* name = "words";
  static constexpr Unit unit = Unit::Word;
  int64_t min_count = 1;
  int64_t vocabulary = 0;

  static void fields(auto& self, auto&& field) {
    field("min_count", self.min_count, "words seen less often in the training split become <unk>",
          at_least(1));
    field("vocabulary", self.vocabulary, "words that the data must have; 0: any number",
          between(0, 1 << 30));
  }
  /// `data` is a folder with the three splits. Throws deq::Error for another vocabulary.
  Corpus load(const std::filesystem::path& data) const;
  int64_t known_vocabulary() const { return vocabulary; }
  /// In a run's vocabulary, for evaluating.
  Corpus load(const std::filesystem::path& data, const Vocabulary& given) const;
};

}  // namespace deq
