#include "deq/train/import.h"

#include <ATen/ATen.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "deq/base/files.h"
#include "deq/base/safetensors.h"
#include "deq/models/published.h"
#include "deq/train/trainer.h"

namespace deq {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxText = uint64_t(1) << 30;

/// The entries whose names begin with "weight.", without it; all entries where there are none.
NamedTensors published_weights(const TensorFile& file) {
  constexpr std::string_view kPrefix = "weight.";
  NamedTensors weights;
  for (const auto& [name, tensor] : file.tensors) {
    if (name.rfind(kPrefix, 0) == 0) weights[name.substr(kPrefix.size())] = tensor;
  }
  return weights.empty() ? file.tensors : weights;
}

std::string config_of(const TensorFile& file, const fs::path& path, const ImportOptions& options) {
  if (!options.config.empty()) return read_file(options.config, kMaxText);
  const auto found = file.metadata.find("config");
  DEQ_CHECK(found != file.metadata.end(),
            "{}: metadata key 'config' is missing; expected it, or --config FILE.json",
            path.string());
  return found->second;
}

/// The words of a training split, each once, in that order.
Vocabulary ordered_vocabulary(const Corpus& corpus, WordOrder order) {
  const Vocabulary& by_frequency = corpus.vocabulary;
  std::vector<int64_t> ids;
  std::vector<bool> seen(size_t(by_frequency.size()));
  const auto take = [&](int64_t id) {
    if (!seen[size_t(id)]) ids.push_back(id);
    seen[size_t(id)] = true;
  };
  if (order == WordOrder::EndOfLineFirst) {
    if (const auto end_of_line = by_frequency.find(kEndOfLine)) take(*end_of_line);
  }
  if (order == WordOrder::Appearance) {
    const at::Tensor train = corpus.train.tokens.contiguous();
    for (int64_t i = 0; i < train.numel(); ++i) take(train.data_ptr<int64_t>()[i]);
  }
  for (int64_t id = 0; id < by_frequency.size(); ++id) take(id);
  std::vector<std::string> tokens;
  for (const int64_t id : ids) tokens.push_back(by_frequency.token(id));
  return Vocabulary(Unit::Word, tokens);
}

Vocabulary vocabulary_of(const ImportOptions& options, int64_t size) {
  std::string source = "tokens named by their numbers";
  Vocabulary vocabulary;
  if (!options.vocabulary.empty()) {
    source = options.vocabulary;
    std::istringstream lines(read_file(options.vocabulary, kMaxText));
    std::vector<std::string> tokens;
    for (std::string line; std::getline(lines, line);) tokens.push_back(line);
    vocabulary = Vocabulary(Unit::Word, tokens);
  } else if (!options.data.empty()) {
    source = options.data;
    vocabulary = ordered_vocabulary(Words{}.load(options.data), options.order);
  } else {
    std::vector<std::string> tokens;
    for (int64_t id = 0; id < size; ++id) tokens.push_back(std::to_string(id));
    vocabulary = Vocabulary(Unit::Symbol, tokens);
  }
  DEQ_CHECK(vocabulary.size() == size, "vocabulary of {}: {} tokens; the weights have {}", source,
            vocabulary.size(), size);
  return vocabulary;
}

/// How the published code was run, where its settings say.
void take_lengths(const std::string& config_json, TrainOptions& options) {
  const auto config = nlohmann::json::parse(config_json);
  const auto take = [&](const char* key, int64_t& value) {
    if (config.contains(key) && config[key].is_number_integer()) value = config[key];
  };
  take("length", options.loop.batch.length);
  options.loop.batch.history = options.loop.batch.length;
  take("memory", options.loop.batch.history);
  options.eval.length = options.loop.batch.length;
  options.eval.history = options.loop.batch.history;
}

}  // namespace

TrainOptions import_published(const fs::path& weights, const fs::path& folder,
                              const ImportOptions& options) {
  DEQ_CHECK(!fs::exists(folder) || (fs::is_directory(folder) && fs::is_empty(folder)),
            "run folder '{}' is not empty; expected one that is, or none", folder.string());
  const TensorFile file = load_tensors(weights);
  const std::string config = config_of(file, weights, options);
  TrainOptions run;
  run.model = published_options(config);
  run.data = options.data.empty() ? "" : fs::absolute(options.data).lexically_normal().string();
  take_lengths(config, run);
  validate(run, "published settings");
  const Vocabulary vocabulary = vocabulary_of(options, published_vocabulary(config));
  LanguageModel model(run.model, vocabulary.size());
  load_published(model, published_weights(file));
  fs::create_directories(folder);
  vocabulary.save(folder / "vocab.txt");
  save_tensors(folder / "best.safetensors", named_tensors(model),
               {{"vocabulary", vocabulary.fingerprint()}, {"step", "0"}});
  write_file(folder / "config.toml", to_toml(options_in_force(run)));
  return run;
}

}  // namespace deq
