// deq data: fetch the usual text data sets, and say what is in one.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <filesystem>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "cli/commands.h"
#include "cli/datasets.h"
#include "cli/download.h"
#include "cli/options.h"
#include "cli/parse.h"
#include "cli/unzip.h"
#include "deq/base/error.h"
#include "deq/base/levels.h"
#include "deq/base/printable.h"
#include "deq/data/entropy.h"
#include "deq/files/sha256.h"
#include "deq/tasks/tasks.h"

namespace deq::cli {
namespace {

namespace fs = std::filesystem;

struct FetchOptions {
  std::string name, to, url, sha256;
};

bool is_there(const fs::path& path, const std::string& sha256) {
  std::error_code ignored;
  return fs::is_regular_file(path, ignored) && sha256_hex_of_file(path) == sha256;
}

/// Data sets that come as an archive: its members replace it. They have no sums of their own, so
/// the archive is fetched again whatever stands there under their names.
void fetch_archive(const Dataset& dataset, const std::string& url, const std::string& sha256,
                   const fs::path& folder) {
  const fs::path archive = folder / dataset.files[0].name;
  if (!is_there(archive, sha256)) download(url + "/" + dataset.files[0].name, archive, sha256);
  unzip(archive, dataset.members, folder);
  fs::remove(archive);
  for (const std::string& name : dataset.members) {
    fmt::print("{}  {} bytes\n", (folder / name).string(), fs::file_size(folder / name));
  }
}

int fetch(const FetchOptions& options) {
  const auto& known = datasets();
  const auto dataset = std::find_if(known.begin(), known.end(), [&](const Dataset& each) {
    return each.name == options.name;
  });  // CLI11 has checked the name
  DEQ_CHECK(options.sha256.empty() || dataset->files.size() == 1,
            "--sha256 is for data sets of one file; {} has {}", dataset->name,
            dataset->files.size());
  std::string url = options.url.empty() ? dataset->url : options.url;
  while (!url.empty() && url.back() == '/') url.pop_back();
  const fs::path folder =
      options.to.empty() ? fs::path("data") / dataset->name : fs::path(options.to);
  std::error_code failed;
  fs::create_directories(folder, failed);
  DEQ_CHECK(!failed, "cannot make the folder '{}': {}", printable(folder.string(), 400),
            failed.message());
  if (!dataset->members.empty()) {
    const std::string& listed = dataset->files[0].sha256;
    fetch_archive(*dataset, url, options.sha256.empty() ? listed : options.sha256, folder);
    return 0;
  }
  for (const DatasetFile& file : dataset->files) {
    const fs::path target = folder / file.name;
    const std::string& sha256 = options.sha256.empty() ? file.sha256 : options.sha256;
    const bool there = is_there(target, sha256);
    if (!there) download(url + "/" + file.name, target, sha256);
    fmt::print("{}  {} bytes{}\n", target.string(), fs::file_size(target),
               there ? ", already there" : "");
  }
  return 0;
}

int list() {
  for (const Dataset& dataset : datasets()) {
    uint64_t bytes = 0;
    for (const DatasetFile& file : dataset.files) bytes += file.bytes;
    fmt::print("{:<17} {:<11} {:>6.1f} MB  {}\n", dataset.name, dataset.task, double(bytes) / 1e6,
               dataset.url);
  }
  return 0;
}

struct InfoOptions {
  Task task;
  static void fields(auto& self, auto&& field) { field("task", self.task, "what a token is"); }
};

/// Of real values: the mean absolute error of the task's baseline.
double baseline_error(const Split& split) {
  const Batch batch{.tokens = split.tokens, .targets = split.targets};
  const at::Tensor none = at::zeros(split.tokens.sizes(), at::kDouble).unsqueeze(3);
  const auto rows = split.scoring->rows(split.scoring->of_problems({none}, batch).sum(0), {});
  for (const auto& [name, value] : rows.front().numbers) {
    if (name == "season_mae") return value;
  }
  return NAN;
}

/// Its size, and what a model that ignores its context would reach.
std::string describe(const Corpus& corpus, const Split& split, const char* unit) {
  const at::Tensor& tokens = split.tokens;
  const int64_t vocabulary = corpus.vocabulary.size();
  if (!split.sequences()) {
    return fmt::format("{} {}s, unigram entropy {:.4f} bits per {}", tokens.numel(), unit,
                       unigram_bits(corpus.train.tokens, tokens, vocabulary), unit);
  }
  if (split.scoring) {
    return fmt::format("{} windows of {} rows, {} {}s are scored; MAE of a season ago {:.4g}",
                       tokens.size(0), tokens.size(1), split.targets.ge(0).sum().item<int64_t>(),
                       unit, baseline_error(split));
  }
  if (corpus.answers) {
    const at::IntArrayRef largest = tokens.sizes().slice(1);
    return fmt::format("{} problems of {}{} {}s, {} of the answers are scored", tokens.size(0),
                       split.extents.defined() ? "up to " : "", fmt::join(largest, " x "), unit,
                       split.targets.ge(0).sum().item<int64_t>());
  }
  return fmt::format("{} sequences of {} {}s, entropy by position {:.4g} nats per {}",
                     tokens.size(0), tokens.size(1), unit,
                     positional_nats(corpus.train, split, vocabulary), unit);
}

int print_info(const std::string& path, const std::string& vocabulary, const Assignments& given) {
  InfoOptions options;
  assign_options(options, given);
  const Corpus corpus = vocabulary.empty() ? load(options.task, path)
                                           : load(options.task, path, Vocabulary::load(vocabulary));
  const char* unit = unit_name(options.task);
  fmt::print("vocabulary  {} {}s, fingerprint {}\n", corpus.vocabulary.size(), unit,
             corpus.vocabulary.fingerprint());
  for (int64_t id = kMarks; id < corpus.vocabulary.size() && corpus.train.scoring; ++id)
    fmt::print("column      {}\n", printable(corpus.vocabulary.token(id), 200));
  if (corpus.answers)
    fmt::print("answers     {} {}s, fingerprint {}\n", corpus.answers->size(), unit,
               corpus.answers->fingerprint());
  const std::pair<const char*, const Split&> splits[] = {
      {"train", corpus.train}, {"valid", corpus.valid}, {"test", corpus.test}};
  for (const auto& [name, split] : splits) {
    fmt::print("{:<11} {}\n", name, describe(corpus, split, unit));
  }
  std::vector<std::string> more;
  for (const NamedSplit& named : corpus.more) more.push_back(named.name);
  if (!more.empty()) fmt::print("test sets   {}\n", join(more, ", "));
  return 0;
}

}  // namespace

int data(int argc, char** argv) {
  CLI::App app("Fetches the usual text data sets, and says what is in one.", "deq data");
  app.require_subcommand(1);
  std::vector<std::string> names;
  for (const Dataset& dataset : datasets()) names.push_back(dataset.name);

  FetchOptions fetching;
  CLI::App* fetch_app = app.add_subcommand("fetch", "download a data set and check its sums");
  fetch_app->add_option("name", fetching.name, "the data set, as `deq data list` names it")
      ->required()
      ->check(CLI::IsMember(names));
  fetch_app->add_option("--to", fetching.to, "folder to put it in [data/NAME]");
  fetch_app->add_option("--url", fetching.url, "another folder that serves the same files");
  fetch_app->add_option("--sha256", fetching.sha256, "another sum, for another file of that name");

  CLI::App* list_app = app.add_subcommand("list", "the data sets that can be fetched");

  std::string path, vocabulary;
  Assignments given;
  CLI::App* info_app = app.add_subcommand("info", "counts, vocabulary and the entropy to beat");
  info_app->add_option("path", path, "a folder with the splits, or one file; none for copy-memory");
  info_app->add_option("--vocabulary", vocabulary, "a run's vocabulary, in place of its own");
  add_options(*info_app, InfoOptions{}, given);

  if (const auto exit_code = parse(app, argc, argv)) return *exit_code;
  if (*fetch_app) return fetch(fetching);
  if (*list_app) return list();
  return print_info(path, vocabulary, given);
}

}  // namespace deq::cli
