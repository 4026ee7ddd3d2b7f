// A file of published weights becomes a run folder, or an error and nothing.
#include "deq/runs/import.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "deq/files/safetensors.h"
#include "deq/models/language_model.h"
#include "deq/models/published.h"
#include "deq/runs/run.h"
#include "tests/base/scratch.h"

namespace deq {
namespace {

namespace fs = std::filesystem;
using at::Tensor;

constexpr const char* kTransformer =
    R"({"kind": "deq-transformer", "vocab": 20, "d_model": 8, "n_head": 2, "d_head": 4,
        "d_inner": 12, "d_embed": 8, "div_val": 1, "cutoffs": [], "pre_norm": false,
        "weight_norm": true, "local_size": 0, "tie_weights": true, "tie_projections": [false],
        "length": 6, "memory": 5})";
constexpr const char* kTrellisNet =
    R"({"kind": "deq-trellisnet", "vocab": 20, "d_embed": 6, "n_hidden": 5, "n_out": 6,
        "kernel_size": 2, "dilation": 1, "weight_norm": false, "tie_weights": true})";

/// The parameters of a model of that kind, by their published names.
NamedTensors published(const LanguageModel& model) {
  NamedTensors own, weights;
  for (const auto& item : model.named_parameters()) own[item.key()] = item.value().detach();
  for (const auto& item : model.named_buffers()) own[item.key()] = item.value();
  for (const auto& [name, ours] : published_names(model)) weights[name] = own.at(ours);
  return weights;
}

struct Case {
  testing::Scratch scratch;
  std::string config;
  LanguageModel model;
  NamedTensors weights;

  explicit Case(const char* config)
      : config(config), model(published_options(config), 20), weights(published(model)) {}
  fs::path file() const { return scratch / "weights.safetensors"; }
  fs::path run() const { return scratch / "run"; }
  void save(const std::string& prefix = "") const {
    NamedTensors stored;
    for (const auto& [name, tensor] : weights) stored[prefix + name] = tensor;
    save_tensors(file(), stored, {{"config", config}});
  }
};

TEST(Import, MakesARunThatHoldsTheWeights) {
  for (const char* config : {kTransformer, kTrellisNet}) {
    for (const char* prefix : {"", "weight.", "module."}) {
      const Case c(config);
      c.save(prefix);
      import_published(c.file(), c.run(), {});
      const TrainedModel run = load_run(c.run());
      EXPECT_EQ(run.vocabulary.size(), 20);
      const auto theirs = c.model.named_parameters();
      for (const auto& item : run.model->named_parameters())
        EXPECT_TRUE(at::equal(item.value(), theirs[item.key()])) << item.key();
    }
  }
}

TEST(Import, TakesLengthsFromTheSettings) {
  const Case c(kTransformer);
  c.save();
  const TrainOptions options = import_published(c.file(), c.run(), {});
  EXPECT_EQ(options.eval.length, 6);
  EXPECT_EQ(options.eval.history, 5);
}

/// The options that name a vocabulary of that text.
ImportOptions listed(const Case& c, const std::string& text) {
  const fs::path path = c.scratch / "words.txt";
  testing::spill(path, text);
  ImportOptions options;
  options.vocabulary = path.string();
  return options;
}

TEST(Import, TakesAListOfWordsWithEitherLineEnd) {
  std::string unix_list, windows_list;
  for (int i = 0; i < 20; ++i) {
    unix_list += "w" + std::to_string(i) + "\n";
    windows_list += "w" + std::to_string(i) + "\r\n";
  }
  for (const std::string& list : {unix_list, windows_list}) {
    const Case c(kTransformer);
    c.save();
    import_published(c.file(), c.run(), listed(c, list));
    EXPECT_EQ(load_run(c.run()).vocabulary.token(19), "w19");
  }
}

TEST(Import, PassesOverCopiesOfF) {
  Case c(kTrellisNet);
  c.weights["trellisnet.func_copy.full_conv.weight"] = at::zeros({3});
  c.weights["trellisnet.deqback.func.full_conv.bias"] = at::zeros({3});
  c.save();
  EXPECT_NO_THROW(import_published(c.file(), c.run(), {}));
}

/// An error that says `part`, and no run folder.
void expect_refused(const Case& c, const ImportOptions& options, const std::string& part) {
  EXPECT_SAYS(testing::error_of([&] { import_published(c.file(), c.run(), options); }), part);
  EXPECT_FALSE(fs::exists(c.run()));
}

TEST(Import, NamesTheLineThatIsNoWord) {
  const Case c(kTransformer);
  c.save();
  expect_refused(c, listed(c, "a\n\nb\n"), "words.txt:2: ''; expected one word");
  expect_refused(c, listed(c, "a\nb c\n"), "words.txt:2: 'b c'; expected one word");
  expect_refused(c, listed(c, "a\nb\na\n"), "words.txt:3: 'a' stands in line 1 already");
}

TEST(Import, NamesWhatDoesNotFit) {
  {
    Case c(kTransformer);
    c.weights.erase("func.pos_ff.ff1_net.bias");
    c.save();
    expect_refused(c, {}, "'func.pos_ff.ff1_net.bias' is missing");
  }
  {
    Case c(kTransformer);
    c.weights["func.pos_ff.ff1_net.bias"] = at::zeros({13});
    c.save();
    expect_refused(c, {}, "shape [13]; expected [12]");
  }
  {
    Case c(kTrellisNet);
    c.weights["elsewhere.weight"] = at::zeros({13});
    c.save();
    expect_refused(c, {}, "'elsewhere.weight' does not belong");
  }
  {
    Case c(kTrellisNet);
    c.config = R"({"kind": "deq-trellisnet", "vocab": 20})";
    c.save();
    expect_refused(c, {}, "d_embed");
    testing::spill(c.scratch / "c.json", "{\"kind\":");
    expect_refused(c, {.config = (c.scratch / "c.json").string()}, "c.json: config: parse error");
  }
  {
    Case c(kTrellisNet);
    c.config = R"({"kind": "mdeq"})";
    c.save();
    expect_refused(c, {}, "kind 'mdeq'");
  }
  {
    const Case c(kTrellisNet);
    c.save();
    testing::spill(c.scratch / "words.txt", "a\nb\n");
    expect_refused(c, {.vocabulary = (c.scratch / "words.txt").string()}, "2 tokens");
  }
}

TEST(Import, RefusesHostileSettings) {
  const auto with = [](const char* config, const std::string& from, const std::string& to,
                       const std::string& says) {
    Case c(config);
    const size_t at = c.config.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    c.config.replace(at, from.size(), to);
    c.save();
    expect_refused(c, {}, says);
  };
  with(kTransformer, "\"vocab\": 20", "\"vocab\": 1000000000000", "numbers");
  with(kTransformer, "\"vocab\": 20", "\"vocab\": 1e300", "vocab = 1e+300");
  with(kTransformer, "\"vocab\": 20", "\"vocab\": true", "vocab = true");
  with(kTransformer, "\"d_inner\": 12", "\"d_inner\": 16000000", "numbers");
  with(kTransformer, "\"d_inner\": 12", "\"d_inner\": 18446744073709551615", "d_inner");
  with(kTransformer, "\"n_head\": 2, \"d_head\": 4",
       "\"n_head\": 1048576, \"d_head\": 4611686018427387904", "d_head");
  with(kTransformer, "\"length\": 6", "\"length\": \"6\"", "length = ");
  with(kTransformer, "\"weight_norm\": true", "\"weight_norm\": 7", "config: ");
  with(kTrellisNet, "\"n_out\": 6", "\"n_out\": -6", "-6");
}

TEST(Import, RefusesTiedWeightsThatDiffer) {
  Case c(kTrellisNet);
  c.weights["decoder.weight"] = c.weights["decoder.weight"] + 1;
  c.save();
  expect_refused(c, {}, "differs from another");
}

TEST(Import, LeavesAFolderThatIsNotEmpty) {
  const Case c(kTrellisNet);
  c.save();
  fs::create_directory(c.run());
  testing::spill(c.run() / "kept.txt", "kept");
  EXPECT_THROW(import_published(c.file(), c.run(), {}), Error);
  EXPECT_EQ(testing::slurp(c.run() / "kept.txt"), "kept");
}

}  // namespace
}  // namespace deq
