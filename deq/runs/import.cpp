#include "deq/runs/import.h"

#include <ATen/ATen.h>

#include <map>
#include <sstream>

#include "deq/base/printable.h"
#include "deq/base/toml.h"
#include "deq/base/utf8.h"
#include "deq/cells/transformer.h"
#include "deq/cells/trellisnet.h"
#include "deq/files/files.h"
#include "deq/files/safetensors.h"
#include "deq/models/published.h"
#include "deq/tasks/words.h"
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

/// A weight of the model that was passed over for its type must not pass for one that is missing.
void check_types(const LanguageModel& model, const TensorFile& file, const fs::path& path) {
  const auto names = published_names(model);
  for (const auto& [stored, type] : file.unread) {
    std::string_view name = stored;
    for (const std::string_view prefix : {"weight.", "module."}) {
      if (name.starts_with(prefix)) name.remove_prefix(prefix.size());
    }
    if (names.contains(std::string(name))) tensor_of(file, stored, path.string());
  }
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

/// A word a line, each once; lines may end in CRLF.
std::vector<std::string> listed_words(const std::string& path) {
  std::istringstream lines{std::string(without_mark(read_file(path, kMaxText)))};
  std::vector<std::string> words;
  std::map<std::string, size_t> places;
  for (std::string line; std::getline(lines, line);) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    const size_t number = words.size() + 1;
    DEQ_CHECK(!line.empty() && line.find_first_of(" \t\r\f\v") == std::string::npos,
              "{}:{}: '{}'; expected one word", path, number, printable(line));
    const auto [first, fresh] = places.emplace(line, number);
    DEQ_CHECK(fresh, "{}:{}: '{}' stands in line {} already; expected each word once", path, number,
              printable(line), first->second);
    words.push_back(std::move(line));
  }
  return words;
}

Vocabulary vocabulary_of(const ImportOptions& options, int64_t size) {
  std::string source = "tokens named by their numbers";
  Vocabulary vocabulary;
  if (!options.vocabulary.empty()) {
    source = options.vocabulary;
    vocabulary = Vocabulary(Unit::Word, listed_words(options.vocabulary));
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

/// Settings that ask for far more than the file holds would exhaust memory before they are refused.
void check_size(const ModelOptions& model, int64_t vocabulary, const TensorFile& file,
                const fs::path& path) {
  double held = 0;
  for (const auto& [name, tensor] : file.tensors) held += double(tensor.numel());
  double least = double(vocabulary);  // a bias each
  if (const auto* cell = model.cell.get_if<Transformer>())
    least += 2.0 * double(cell->width) * double(cell->inner + cell->width);
  if (const auto* cell = model.cell.get_if<TrellisNet>()) {
    const double H = double(cell->hidden + cell->output);
    least += 4 * H * (H + double(cell->input)) * double(cell->kernel);
  }
  if (least > held) require_all_read(file, path.string());
  DEQ_CHECK(
      least <= held,
      "config: settings of {:.0f} weights at least; expected those of the file's {:.0f} numbers",
      least, held);
}

/// How the published code was run, where its settings say.
void take_lengths(const std::string& config, TrainOptions& options) {
  BatchOptions& batch = options.loop.batch;
  batch.length = published_number(config, "length").value_or(batch.length);
  batch.history = published_number(config, "memory").value_or(batch.length);
  options.eval.length = batch.length;
  options.eval.history = batch.history;
}

}  // namespace

TrainOptions import_published(const fs::path& weights, const fs::path& folder,
                              const ImportOptions& options) {
  std::error_code error;
  const bool free = !fs::exists(folder, error) ||
                    (fs::is_directory(folder, error) && fs::is_empty(folder, error));
  DEQ_CHECK(free && !error, "run folder '{}' is not empty; expected one that is, or none",
            folder.string());
  DEQ_CHECK(options.order == WordOrder::EndOfLineFirst || !options.data.empty(),
            "order = {}: no words to order; expected --data with it",
            Names<WordOrder>::values[size_t(options.order)]);
  DEQ_CHECK(options.data.empty() || options.vocabulary.empty(),
            "vocabulary = {}, data = {}; expected one of them", options.vocabulary, options.data);
  const TensorFile file = load_tensors(weights);
  const std::string config = config_of(file, weights, options);
  TrainOptions run;
  int64_t tokens = 0;
  try {
    run.model = published_options(config);
    take_lengths(config, run);
    tokens = published_vocabulary(config);
  } catch (const Error& error) {
    const std::string source = options.config.empty() ? weights.string() : options.config;
    throw Error(fmt::format("{}: {}", printable(source, 400), error.what()));
  }
  run.data = options.data.empty() ? "" : fs::absolute(options.data).lexically_normal().string();
  validate(run, "published settings");
  check_size(run.model, tokens, file, weights);
  const Vocabulary vocabulary = vocabulary_of(options, tokens);
  LanguageModel model(run.model, vocabulary.size());
  check_types(model, file, weights);
  load_published(model, published_weights(file));
  fs::create_directories(folder, error);
  DEQ_CHECK(fs::is_directory(folder), "run folder '{}': cannot create: {}", folder.string(),
            error.message());
  vocabulary.save(folder / "vocab.txt");
  save_tensors(folder / "best.safetensors", named_tensors(model),
               {{"vocabulary", vocabulary.fingerprint()}, {"step", "0"}});
  write_file(folder / "config.toml", to_toml(options_in_force(run)));
  return run;
}

}  // namespace deq
