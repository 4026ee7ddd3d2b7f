#include "deq/tasks/words.h"

namespace deq {

Corpus Words::load(const std::filesystem::path& data) const {
  validate(*this, "Words");
  Corpus corpus = load_corpus(find_splits(data, false), {}, {Unit::Word, min_count});
  DEQ_CHECK(vocabulary == 0 || corpus.vocabulary.size() == vocabulary,
            "task-vocabulary = {}: {} has {} words", vocabulary, data.string(),
            corpus.vocabulary.size());
  return corpus;
}

Corpus Words::load(const std::filesystem::path& data, const Vocabulary& given) const {
  validate(*this, "Words");
  return load_corpus(find_splits(data, false), {}, {Unit::Word, min_count}, &given);
}

}  // namespace deq
