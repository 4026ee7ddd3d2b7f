#include "deq/data/words.h"

namespace deq {

Corpus Words::load(const std::filesystem::path& data) const {
  validate(*this, "Words");
  return load_corpus(find_splits(data, false), {}, {Unit::Word, min_count});
}

Corpus Words::load(const std::filesystem::path& data, const Vocabulary& vocabulary) const {
  return load_corpus(find_splits(data, false), {}, {Unit::Word, min_count}, &vocabulary);
}

}  // namespace deq
