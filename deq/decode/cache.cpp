#include "deq/decode/cache.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "deq/files/safetensors.h"
#include "deq/files/sha256.h"

namespace deq {

using at::Tensor;

namespace {

constexpr const char* kFormat = "1";
constexpr int64_t kMostLevels = 1 << 20;

struct Part {
  const char* name;
  Tensor History::*tensor;
};
constexpr Part kParts[] = {
    {"z", &History::z}, {"x", &History::x}, {"k", &History::k}, {"v", &History::v}};

/// (1, ., W) tensors as one batch, zeros before the shorter ones.
Tensor join_parts(const std::vector<Tensor>& parts) {
  int64_t longest = 0;
  const Tensor* some = nullptr;
  for (const Tensor& part : parts) {
    if (!part.defined()) continue;
    some = &part;
    longest = std::max(longest, part.size(1));
  }
  if (!some) return {};
  std::vector<Tensor> padded;
  for (const Tensor& part : parts) {
    const int64_t held = part.defined() ? part.size(1) : 0;
    const Tensor none = at::zeros({1, longest - held, some->size(2)}, some->options());
    padded.push_back(held > 0 ? at::cat({none, part}, 1) : none);
  }
  return at::cat(padded, 0);
}

History join_level(const std::vector<EquilibriumCache>& texts, size_t level) {
  History all;
  for (const Part& part : kParts) {
    std::vector<Tensor> of_texts;
    for (const EquilibriumCache& text : texts)
      of_texts.push_back(text.histories[level].*part.tensor);
    all.*part.tensor = join_parts(of_texts);
  }
  for (const EquilibriumCache& text : texts) {
    const History& own = text.histories[level];
    DEQ_CHECK(all.weights == 0 || own.weights == 0 || own.weights == all.weights,
              "join: caches that different weights gave; expected those of one model");
    all.weights = own.weights != 0 ? own.weights : all.weights;
    all.hidden.push_back(all.length() - own.length() + (own.hidden.empty() ? 0 : own.hidden[0]));
  }
  all.hidden = still_hidden(std::move(all.hidden), 0);
  return all;
}

History of_text(const History& all, int64_t text) {
  History own;
  own.weights = all.weights;
  const int64_t hidden = all.hidden.empty() ? 0 : all.hidden[size_t(text)];
  for (const Part& part : kParts) {
    const Tensor& from = all.*part.tensor;
    if (from.defined())
      own.*part.tensor = from.narrow(0, text, 1).narrow(1, hidden, from.size(1) - hidden);
  }
  return own;
}

/// What reading a level relies on; the cell checks its widths.
void check_level(const std::filesystem::path& path, const History& level, const Tensor& next) {
  for (const Part& part : kParts) {
    const Tensor& t = level.*part.tensor;
    DEQ_CHECK(!t.defined() || (next.dim() == 2 && t.dim() == 3 && t.size(0) == next.size(0) &&
                               t.scalar_type() == next.scalar_type()),
              "cache '{}': {} is {} [{}]; expected 3 dimensions, as many texts and the type of "
              "log_probabilities, {} [{}]",
              path.string(), part.name, c10::toString(t.scalar_type()), fmt::join(t.sizes(), ", "),
              c10::toString(next.scalar_type()), fmt::join(next.sizes(), ", "));
  }
  DEQ_CHECK(level.hidden.empty() || int64_t(level.hidden.size()) == next.size(0),
            "cache '{}': hidden positions of {} texts; expected {}", path.string(),
            level.hidden.size(), next.size(0));
  for (const int64_t hidden : level.hidden) {
    DEQ_CHECK(hidden >= 0 && hidden <= level.length(),
              "cache '{}': {} hidden positions; expected 0 to {}", path.string(), hidden,
              level.length());
  }
}

}  // namespace

EquilibriumCache join(const std::vector<EquilibriumCache>& texts) {
  DEQ_CHECK(!texts.empty(), "join: no cache; expected at least one");
  EquilibriumCache all;
  std::vector<Tensor> next;
  for (const EquilibriumCache& text : texts) {
    DEQ_CHECK(text.histories.size() == texts.front().histories.size(),
              "join: caches of {} and {} levels; expected one number",
              texts.front().histories.size(), text.histories.size());
    if (text.log_probabilities.defined()) next.push_back(text.log_probabilities);
  }
  for (size_t level = 0; level < texts.front().histories.size(); ++level)
    all.histories.push_back(join_level(texts, level));
  if (next.size() == texts.size()) all.log_probabilities = at::cat(next, 0);
  return all;
}

std::vector<EquilibriumCache> split(const EquilibriumCache& cache) {
  DEQ_CHECK(cache.log_probabilities.defined(), "split: nothing was fed; expected some texts");
  std::vector<EquilibriumCache> texts(size_t(cache.log_probabilities.size(0)));
  for (size_t text = 0; text < texts.size(); ++text) {
    for (const History& level : cache.histories)
      texts[text].histories.push_back(of_text(level, int64_t(text)));
    texts[text].log_probabilities = cache.log_probabilities.narrow(0, int64_t(text), 1);
  }
  return texts;
}

EquilibriumCache on_device(EquilibriumCache cache, c10::Device device) {
  const auto move = [&](Tensor& t) {
    if (t.defined()) t = t.to(device);
  };
  for (History& level : cache.histories) {
    for (const Part& part : kParts) move(level.*part.tensor);
  }
  move(cache.log_probabilities);
  return cache;
}

std::string weights_fingerprint(const LanguageModel& model) {
  Sha256 digest;
  if (model.weight_type() != WeightType::Exact)
    digest.update(Names<WeightType>::values[size_t(model.weight_type())]);
  for (const auto& item : model.named_parameters()) {
    const Tensor value = item.value().detach().to(at::kCPU).contiguous();
    digest.update(item.key());
    digest.update(value.data_ptr(), value.nbytes());
  }
  return digest.hex();
}

void save_cache(const std::filesystem::path& path, const EquilibriumCache& cache,
                const std::string& weights) {
  DEQ_CHECK(cache.log_probabilities.defined(),
            "cache '{}': nothing was fed; expected at least one token", path.string());
  std::map<std::string, Tensor> tensors{{"log_probabilities", cache.log_probabilities}};
  for (size_t level = 0; level < cache.histories.size(); ++level) {
    const History& history = cache.histories[level];
    const std::string prefix = fmt::format("level{}.", level);
    for (const Part& part : kParts) {
      if ((history.*part.tensor).defined()) tensors[prefix + part.name] = history.*part.tensor;
    }
    if (!history.hidden.empty()) tensors[prefix + "hidden"] = at::tensor(history.hidden, at::kLong);
  }
  save_tensors(path, tensors,
               {{"deq_cache", kFormat},
                {"levels", std::to_string(cache.histories.size())},
                {"weights", weights}});
}

EquilibriumCache load_cache(const std::filesystem::path& path, const std::string& weights) {
  TensorFile file = load_tensors(path);
  require_all_read(file, path.string());
  DEQ_CHECK(file.metadata.contains("deq_cache") && file.tensors.contains("log_probabilities"),
            "'{}' is no equilibrium cache; expected a file that `deq generate --save-cache` wrote",
            path.string());
  DEQ_CHECK(file.metadata["deq_cache"] == kFormat, "cache '{}' has format {}; known: {}",
            path.string(), file.metadata["deq_cache"], kFormat);
  DEQ_CHECK(file.metadata["weights"] == weights,
            "cache '{}' belongs to other weights than this run's; expected one saved by this run",
            path.string());
  EquilibriumCache cache;
  cache.log_probabilities = file.tensors["log_probabilities"];
  const std::string levels = file.metadata["levels"];
  for (int64_t level = 0; std::to_string(level) != levels; ++level) {
    DEQ_CHECK(level < kMostLevels, "cache '{}' has '{}' levels; expected a number up to {}",
              path.string(), levels, kMostLevels);
    History history;
    const std::string prefix = fmt::format("level{}.", level);
    for (const Part& part : kParts) {
      const auto found = file.tensors.find(prefix + part.name);
      if (found != file.tensors.end()) history.*part.tensor = found->second;
    }
    const auto hidden = file.tensors.find(prefix + "hidden");
    if (hidden != file.tensors.end()) {
      DEQ_CHECK(hidden->second.scalar_type() == at::kLong, "cache '{}': {} is {}; expected Long",
                path.string(), hidden->first, c10::toString(hidden->second.scalar_type()));
      const int64_t* counts = hidden->second.data_ptr<int64_t>();
      history.hidden.assign(counts, counts + hidden->second.numel());
    }
    check_level(path, history, cache.log_probabilities);
    cache.histories.push_back(std::move(history));
  }
  return cache;
}

}  // namespace deq
