#include "deq/runs/trust.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "deq/files/files.h"
#include "deq/files/sha256.h"
#include "deq/train/weights.h"

namespace deq {
namespace {

using Json = nlohmann::ordered_json;

constexpr uint64_t kMaxFile = 1 << 20;
constexpr const char* kTrust = "trust.json";
constexpr int64_t kOneWrong = 1000;    // right answers that outweigh a wrong one
constexpr int64_t kFewest = 20;        // problems that a threshold can stand on
constexpr int64_t kMostJudged = 2000;  // problems of the split

std::string sum_of(const Model& model) {
  Sha256 sum;
  for (const auto& [name, tensor] : named_tensors(model)) {
    const at::Tensor value = tensor.detach().to(at::kCPU).contiguous();
    sum.update(name);
    sum.update(value.data_ptr(), value.nbytes());
  }
  return sum.hex();
}

std::map<std::string, std::string> settings_of(const TrainedModel& run,
                                               const AnswerOptions& options) {
  std::map<std::string, std::string> settings;
  for (const OptionInfo& info : selected_options(options)) settings[dashed(info.key)] = info.value;
  if (options.from.starts == 1) {
    settings.erase("start-std");
    settings.erase("start-seed");
  }
  settings["weight-type"] = Names<WeightType>::values[size_t(run.model->weight_type())];
  return settings;
}

Json json_of(const Trust& trust) {
  return {{"threshold", trust.threshold ? Json(*trust.threshold) : Json()},
          {"split", trust.split},
          {"right_within", trust.right_within},
          {"wrong_within", trust.wrong_within},
          {"right_beyond", trust.right_beyond},
          {"wrong_beyond", trust.wrong_beyond},
          {"smallest", trust.smallest},
          {"largest", trust.largest},
          {"weights", trust.weights},
          {"settings", trust.settings}};
}

/// Throws what nlohmann throws for what is none.
Trust trust_in(const Json& row) {
  Trust trust;
  if (!row.at("threshold").is_null()) trust.threshold = row["threshold"].get<double>();
  row.at("split").get_to(trust.split);
  row.at("right_within").get_to(trust.right_within);
  row.at("wrong_within").get_to(trust.wrong_within);
  row.at("right_beyond").get_to(trust.right_beyond);
  row.at("wrong_beyond").get_to(trust.wrong_beyond);
  row.at("smallest").get_to(trust.smallest);
  row.at("largest").get_to(trust.largest);
  row.at("weights").get_to(trust.weights);
  row.at("settings").get_to(trust.settings);
  return trust;
}

/// SHA-256 of a file, or of the names and the sums of a folder's files.
std::string sum_of(const std::filesystem::path& data) {
  namespace fs = std::filesystem;
  if (!fs::is_directory(data)) return sha256_hex_of_file(data);
  std::map<std::string, std::string> sums;
  for (const auto& entry : fs::directory_iterator(data)) {
    if (entry.is_regular_file())
      sums[entry.path().filename().string()] = sha256_hex_of_file(entry.path());
  }
  Sha256 all;
  for (const auto& [name, sum] : sums) all.update(name + "\n" + sum + "\n");
  return all.hex();
}

/// Those of these weights; none of a file that is no list of them, which is written anew: `known`
/// says so, and counts those of others.
std::vector<Trust> read_trusts(const std::filesystem::path& path, const std::string& weights,
                               KnownTrust& known) {
  std::vector<Trust> found;
  if (!std::filesystem::exists(path)) return found;
  try {
    const Json rows = Json::parse(read_file(path, kMaxFile));
    DEQ_CHECK(rows.is_array(), "{}: no list; expected one of thresholds", path.string());
    for (const Json& row : rows) {
      Trust trust = trust_in(row);
      if (trust.weights == weights)
        found.push_back(std::move(trust));
      else
        ++known.forgotten;
    }
  } catch (const Json::exception&) {
    known.unread = path.string() + ": no JSON of thresholds; expected what deq answer leaves there";
  } catch (const Error& error) {
    known.unread = error.what();
  }
  if (known.unread.empty()) return found;
  known.forgotten = 0;
  return {};
}

/// Extents of the smallest and largest of a split's problems, by dimension.
void set_sizes(const Split& split, Trust& trust) {
  trust.smallest = trust.largest = split.tokens.sizes().slice(1).vec();
  if (!split.extents.defined()) return;
  for (size_t d = 0; d < trust.smallest.size(); ++d) {
    const at::Tensor extent = split.extents.select(1, int64_t(d));
    trust.smallest[d] = extent.min().item<int64_t>();
    trust.largest[d] = extent.max().item<int64_t>();
  }
}

}  // namespace

bool Trust::was_trained_on(at::IntArrayRef extent) const {
  for (size_t d = 0; d < extent.size(); ++d) {
    if (d >= largest.size() || extent[d] < smallest[d] || extent[d] > largest[d]) return false;
  }
  return true;
}

Trust choose_trust(const std::vector<Judged>& judged, const StopRule& stop) {
  std::vector<const Judged*> converged;
  for (const Judged& one : judged) {
    if (one.converged) converged.push_back(&one);
  }
  std::stable_sort(converged.begin(), converged.end(),
                   [](const Judged* a, const Judged* b) { return a->residual < b->residual; });
  size_t within = 0;
  int64_t wrong = 0;
  for (size_t i = 0; i < converged.size(); ++i) {
    wrong += !converged[i]->right;
    const bool last_of_its_residual =
        i + 1 == converged.size() || converged[i + 1]->residual > converged[i]->residual;
    const auto count = int64_t(i + 1);
    if (last_of_its_residual && count >= kFewest && wrong * kOneWrong <= count) within = i + 1;
  }
  Trust trust;
  if (within > 0) {
    const double largest = converged[within - 1]->residual;
    trust.threshold = within == converged.size() ? std::max(stop.rel_tol, largest) : largest;
  }
  for (const Judged& one : judged) {
    const bool inside = trust.threshold && one.converged && one.residual <= *trust.threshold;
    ++(inside      ? one.right ? trust.right_within : trust.wrong_within
       : one.right ? trust.right_beyond
                   : trust.wrong_beyond);
  }
  return trust;
}

KnownTrust trust_of(const TrainedModel& run, const AnswerOptions& options, const std::string& data,
                    const std::function<void(double)>& progress) {
  const std::filesystem::path path = std::filesystem::path(run.folder) / kTrust;
  const std::string weights = sum_of(*run.model);
  auto settings = settings_of(run, options);
  if (!data.empty()) settings["data"] = sum_of(std::filesystem::path(data));
  KnownTrust found;
  std::vector<Trust> known = read_trusts(path, weights, found);
  for (const Trust& trust : known) {
    if (trust.settings == settings) return {trust};
  }
  const Corpus corpus = load_corpus(run, data);
  const Split judged = beginning(corpus.valid, kMostJudged);
  if (progress) progress(0);
  found.trust =
      choose_trust(judge(*run.model, judged, options, progress), options.equilibrium.stop);
  found.chosen = true;
  found.trust.weights = weights;
  found.trust.settings = settings;
  set_sizes(corpus.train, found.trust);
  known.push_back(found.trust);
  Json rows = Json::array();
  for (const Trust& trust : known) rows.push_back(json_of(trust));
  try {
    write_file(path, rows.dump(2) + "\n");
  } catch (const Error& error) {
    found.not_kept = error.what();
  }
  return found;
}

}  // namespace deq
