#include "deq/data/corpus.h"

#include <array>
#include <cmath>
#include <memory>
#include <numeric>
#include <unordered_map>

#include "deq/base/printable.h"
#include "deq/data/text_reader.h"

namespace deq {
namespace {

namespace fs = std::filesystem;

constexpr std::array<std::array<const char*, 3>, 3> kNames = {{
    {"ptb.train.txt", "ptb.valid.txt", "ptb.test.txt"},
    {"train.txt", "valid.txt", "test.txt"},
    {"wiki.train.tokens", "wiki.valid.tokens", "wiki.test.tokens"},
}};
constexpr const char* kSingleName = "input.txt";

std::string shown(const fs::path& path) { return printable(path.string(), 400); }

bool is_file(const fs::path& path) {
  std::error_code ignored;
  return fs::is_regular_file(path, ignored);
}

std::string looked_for(bool single_file) {
  std::vector<std::string> sets;
  for (const auto& names : kNames) sets.push_back(fmt::format("{}", fmt::join(names, ", ")));
  if (single_file) sets.push_back(kSingleName);
  return join(sets, "; or ");
}

/// Hands the vector's memory to a tensor: a copy would double what a large corpus takes.
at::Tensor adopt(std::vector<int64_t> ids) {
  auto* owner = new std::vector<int64_t>(std::move(ids));
  return at::from_blob(
      owner->data(), {int64_t(owner->size())}, [owner](void*) { delete owner; }, at::kLong);
}

/// Token -> id while a training split is read, in order of first appearance.
class Counter {
 public:
  int64_t count(std::string_view token) {
    auto found = ids_.find(token);
    if (found == ids_.end()) {
      auto text = std::make_unique<std::string>(token);  // keys are views: its place must not move
      found = ids_.emplace(*text, int64_t(tokens_.size())).first;
      tokens_.push_back(std::move(text));
      counts_.push_back(0);
    }
    ++counts_[size_t(found->second)];
    return found->second;
  }

  /// Folds rare tokens into <unk>, and renames `ids` to the order of frequency.
  Vocabulary finish(const VocabularyRule& rule, std::vector<int64_t>& ids) {
    std::vector<int64_t> target = fold(rule);
    std::vector<int64_t> order;
    for (int64_t id = 0; id < int64_t(tokens_.size()); ++id) {
      const bool kept = counts_[size_t(id)] > 0 || (rule.min_count > 1 && is_unknown(id));
      if (target[size_t(id)] == id && kept) order.push_back(id);
    }
    std::stable_sort(order.begin(), order.end(),
                     [&](int64_t a, int64_t b) { return counts_[size_t(a)] > counts_[size_t(b)]; });
    std::vector<int64_t> rank(tokens_.size());
    std::vector<std::string> tokens;
    for (const int64_t id : order) {
      rank[size_t(id)] = int64_t(tokens.size());
      tokens.push_back(*tokens_[size_t(id)]);
    }
    for (int64_t& id : ids) id = rank[size_t(target[size_t(id)])];
    return Vocabulary(rule.unit, std::move(tokens));
  }

 private:
  bool is_unknown(int64_t id) const { return *tokens_[size_t(id)] == kUnknown; }

  /// The token that each token becomes: itself, or <unk>.
  std::vector<int64_t> fold(const VocabularyRule& rule) {
    std::vector<int64_t> target(tokens_.size());
    std::iota(target.begin(), target.end(), 0);
    if (rule.min_count <= 1) return target;
    const std::vector<int64_t> seen = counts_;
    const int64_t unknown = count(kUnknown);
    --counts_[size_t(unknown)];
    target.resize(tokens_.size());
    target[size_t(unknown)] = unknown;
    for (size_t id = 0; id < seen.size(); ++id) {
      const bool special = *tokens_[id] == kEndOfLine || int64_t(id) == unknown;
      if (special || seen[id] >= rule.min_count) continue;
      target[id] = unknown;
      counts_[size_t(unknown)] += seen[id];
    }
    return target;
  }

  std::vector<std::unique_ptr<std::string>> tokens_;
  std::vector<int64_t> counts_;
  std::unordered_map<std::string_view, int64_t> ids_;
};

/// The three parts in turn, each as (file, byte at which it ends).
class Parts {
 public:
  Parts(const SplitFiles& files, const SplitShares& shares, Unit unit)
      : files_(files), shares_(shares), unit_(unit) {}

  /// Reads part number `split` (they must be read in order) through `use(piece, offset, file)`.
  void read(size_t split,
            const std::function<void(std::string_view, int64_t, const std::string&)>& use) {
    const fs::path* paths[] = {&files_.train, &files_.valid, &files_.test};
    if (!files_.single() || split == 0)
      reader_ = std::make_unique<TextReader>(*paths[split], unit_);
    const auto end = [&](double share) {  // 1e-6: 1 - 0.05 - 0.05 is a little less than 0.9
      return int64_t(std::floor(double(reader_->size()) * share + 1e-6));
    };
    const int64_t ends[] = {end(1 - shares_.valid - shares_.test), end(1 - shares_.test),
                            reader_->size()};
    reader_->read_until(
        files_.single() ? ends[split] : reader_->size(),
        [&](std::string_view piece, int64_t offset) { use(piece, offset, reader_->name()); });
  }

  std::string name(size_t split) const {
    constexpr const char* names[] = {"training", "validation", "test"};
    return fmt::format("the {} split of {}", names[split], reader_->name());
  }

 private:
  const SplitFiles& files_;
  const SplitShares& shares_;
  Unit unit_;
  std::unique_ptr<TextReader> reader_;
};

void check_length(const std::vector<int64_t>& ids, Unit unit, const std::string& split) {
  DEQ_CHECK(ids.size() >= 2, "{} has {} {}{}; expected at least 2", split, ids.size(),
            unit_name(unit), ids.size() == 1 ? "" : "s");
}

}  // namespace

Split beginning(Split split, int64_t count) {
  const int64_t all = split.tokens.size(0);
  if (count == 0 || count >= all) return split;
  split.tokens = split.tokens.narrow(0, 0, count);
  if (split.sequences()) split.targets = split.targets.narrow(0, 0, count);
  if (split.extents.defined()) split.extents = split.extents.narrow(0, 0, count);
  return split;
}

std::vector<std::string> Corpus::splits() const {
  std::vector<std::string> names{"train", "valid", "test"};
  for (const NamedSplit& each : more) names.push_back(each.name);
  return names;
}

Split Corpus::split(const std::string& name) const {
  for (const auto& [known, held] :
       {std::pair<const char*, const Split&>("train", train), {"valid", valid}, {"test", test}}) {
    if (name == known) return held;
  }
  for (const NamedSplit& each : more) {
    if (name == each.name) return each.make();
  }
  throw Error(fmt::format("unknown split '{}'; known: {}", name, join(splits(), ", ")));
}

SplitFiles find_splits(const fs::path& data, bool single_file) {
  std::error_code ignored;
  DEQ_CHECK(!data.empty(), "data is not set; expected a text file or a folder with its splits");
  DEQ_CHECK(fs::exists(data, ignored), "no data at '{}'; looked for a folder with {}", shown(data),
            looked_for(single_file) + (single_file ? "; or a file" : ""));
  if (single_file && is_file(data)) return {data, data, data};
  const std::string hint = single_file ? "" : " (tasks bytes and characters read single files)";
  DEQ_CHECK(fs::is_directory(data, ignored), "'{}' is no folder; expected one with {}{}",
            shown(data), looked_for(single_file), hint);
  for (const auto& names : kNames) {
    if (!is_file(data / names[0])) continue;
    for (const char* name : names) {
      DEQ_CHECK(is_file(data / name), "'{}' has {} but no {}", shown(data), names[0], name);
    }
    return {data / names[0], data / names[1], data / names[2]};
  }
  const fs::path single = data / kSingleName;
  DEQ_CHECK(single_file && is_file(single), "no training split in '{}'; looked for {}{}",
            shown(data), looked_for(single_file), hint);
  return {single, single, single};
}

Corpus load_corpus(const SplitFiles& files, const SplitShares& shares, const VocabularyRule& rule,
                   const Vocabulary* given) {
  DEQ_CHECK(!given || given->unit() == rule.unit,
            "the vocabulary given is of {}s; this task's is of {}s",
            given ? unit_name(given->unit()) : "", unit_name(rule.unit));
  DEQ_CHECK(shares.valid + shares.test < 1 - 1e-9,
            "valid-share {} and test-share {} leave nothing to train on; expected a sum below 1",
            shares.valid, shares.test);
  Corpus corpus;
  if (given) corpus.vocabulary = *given;
  if (!given && rule.unit == Unit::Byte) corpus.vocabulary = Vocabulary::bytes();
  const bool count = !given && rule.unit != Unit::Byte;
  Parts parts(files, shares, rule.unit);
  at::Tensor* splits[] = {&corpus.train.tokens, &corpus.valid.tokens, &corpus.test.tokens};
  for (size_t split = 0; split < 3; ++split) {
    std::vector<int64_t> ids;
    if (split == 0 && count) {
      Counter counter;
      const auto add = [&](std::string_view token, int64_t) {
        ids.push_back(counter.count(token));
      };
      parts.read(split, [&](std::string_view piece, int64_t offset, const std::string& file) {
        for_each_token(rule.unit, piece, add, file, offset);
      });
      check_length(ids, rule.unit, parts.name(split));
      corpus.vocabulary = counter.finish(rule, ids);
    } else {
      const auto add = [&](int64_t id) { ids.push_back(id); };
      parts.read(split, [&](std::string_view piece, int64_t offset, const std::string& file) {
        corpus.vocabulary.encode(piece, add, file, offset);
      });
      check_length(ids, rule.unit, parts.name(split));
    }
    *splits[split] = adopt(std::move(ids));
  }
  return corpus;
}

at::Tensor load_tokens(const fs::path& file, const Vocabulary& vocabulary) {
  TextReader reader(file, vocabulary.unit());
  std::vector<int64_t> ids;
  const auto add = [&](int64_t id) { ids.push_back(id); };
  reader.read_until(reader.size(), [&](std::string_view piece, int64_t offset) {
    vocabulary.encode(piece, add, reader.name(), offset);
  });
  check_length(ids, vocabulary.unit(), reader.name());
  return adopt(std::move(ids));
}

}  // namespace deq
