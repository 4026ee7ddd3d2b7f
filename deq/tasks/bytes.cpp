#include "deq/tasks/bytes.h"

namespace deq {

Corpus Bytes::load(const std::filesystem::path& data) const {
  validate(*this, "Bytes");
  return load_corpus(find_splits(data, true), shares, {unit});
}

Corpus Bytes::load(const std::filesystem::path& data, const Vocabulary& vocabulary) const {
  validate(*this, "Bytes");
  return load_corpus(find_splits(data, true), shares, {unit}, &vocabulary);
}

}  // namespace deq
