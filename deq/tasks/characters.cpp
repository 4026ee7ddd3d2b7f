#include "deq/tasks/characters.h"

namespace deq {

Corpus Characters::load(const std::filesystem::path& data) const {
  validate(*this, "Characters");
  return load_corpus(find_splits(data, true), shares, {unit, min_count});
}

Corpus Characters::load(const std::filesystem::path& data, const Vocabulary& vocabulary) const {
  validate(*this, "Characters");
  return load_corpus(find_splits(data, true), shares, {unit, min_count}, &vocabulary);
}

}  // namespace deq
