#include "deq/runs/split.h"

#include <filesystem>

namespace deq {

Split split_of(const TrainedModel& run, const std::string& data, const std::string& name) {
  const std::string& source = data.empty() ? run.options.data : data;
  if (name == "all" && continues_text(run.options.task)) {
    DEQ_CHECK(std::filesystem::is_regular_file(source),
              "--split all: '{}' is no file; expected --data with one", source);
    return {.tokens = load_tokens(source, run.vocabulary)};
  }
  return load_corpus(run, data).split(name);
}

}  // namespace deq
