#include "deq/tasks/pairs.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <memory>
#include <tuple>
#include <unordered_map>

#include "deq/base/printable.h"
#include "deq/files/files.h"
#include "deq/tasks/lines.h"
#include "deq/tasks/written.h"

namespace deq {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxFile = uint64_t(1) << 32;
constexpr double kMostPlaces = double(int64_t{1} << 29);  // of a split: 8 GiB with its targets
constexpr std::string_view kNotScored = "_";
constexpr size_t kFewest = 3;  // problems of a file that can be cut

/// One problem, as its line has it.
struct Pair {
  std::string_view problem, answer;
  int64_t line = 0;
  int64_t height = 1, width = 0;
};

/// A file and where its pairs stand in it.
struct PairFile {
  std::string name;
  std::unique_ptr<const std::string> text;  // where it stays while the file is moved
  std::vector<Pair> pairs;

  std::string at(const Pair& pair) const { return at_line(name, pair.line); }
};

/// Rows and columns of one column of a line; `use` sees its symbols, one after the other.
template <class Use>
std::pair<int64_t, int64_t> walk(std::string_view text, const std::string& name, int64_t line,
                                 const Use& use) {
  int64_t height = 0, width = 0;
  for (size_t first = 0; first <= text.size(); ++height) {
    const size_t end = std::min(text.find('/', first), text.size());
    int64_t symbols = 0;
    for_each_token(Unit::Symbol, text.substr(first, end - first),
                   [&](std::string_view symbol, int64_t) {
                     ++symbols;
                     use(symbol);
                   });
    DEQ_CHECK(symbols > 0, "{}: a row without a symbol; expected one at least",
              at_line(name, line));
    if (height == 0) width = symbols;
    DEQ_CHECK(symbols == width, "{}: row {} has {} symbols; expected {}, as the first",
              at_line(name, line), height + 1, symbols, width);
    first = end + 1;
  }
  return {height, width};
}

/// Checks one line, but for what its symbols are.
Pair read_pair(std::string_view line, int64_t number, const std::string& name, int64_t dimensions) {
  const size_t tab = line.find('\t');
  DEQ_CHECK(tab != std::string_view::npos && line.find('\t', tab + 1) == std::string_view::npos,
            "{}: {} columns; expected two, a problem, a tab and its answer", at_line(name, number),
            1 + std::count(line.begin(), line.end(), '\t'));
  Pair pair{line.substr(0, tab), line.substr(tab + 1), number};
  for (const std::string_view column : {pair.problem, pair.answer}) {
    const bool grid = column.find('/') != std::string_view::npos;
    DEQ_CHECK(grid == (dimensions == 2), "{}: a {}; expected a {}, as task-dimensions = {} says",
              at_line(name, number), grid ? "grid (its rows joined by /)" : "sequence",
              grid ? "sequence" : "grid, its rows joined by /", dimensions);
  }
  std::tie(pair.height, pair.width) = walk(pair.problem, name, number, [](std::string_view) {});
  bool scored = false;
  const auto [height, width] = walk(pair.answer, name, number, [&](std::string_view symbol) {
    scored = scored || symbol != kNotScored;
  });
  const auto size = [&](int64_t h, int64_t w) {
    return dimensions == 2 ? fmt::format("{} x {}", h, w) : std::to_string(w);
  };
  DEQ_CHECK(height == pair.height && width == pair.width,
            "{}: an answer of {} symbols to a problem of {}; expected as many",
            at_line(name, number), size(height, width), size(pair.height, pair.width));
  DEQ_CHECK(scored, "{}: an answer of nothing but {}; expected a symbol", at_line(name, number),
            kNotScored);
  return pair;
}

PairFile read_pairs(const fs::path& path, int64_t dimensions) {
  PairFile file{path.string(), std::make_unique<const std::string>(read_file(path, kMaxFile)), {}};
  check_text(*file.text, file.name);
  for_each_line(*file.text, [&](std::string_view line, int64_t number) {
    if (!is_blank(line)) file.pairs.push_back(read_pair(line, number, file.name, dimensions));
  });
  DEQ_CHECK(!file.pairs.empty(),
            "'{}' has no problems; expected lines of a problem, a tab and its answer",
            printable(file.name, 400));
  return file;
}

/// By falling frequency, ties in order of first appearance.
class Counts {
 public:
  void add(std::string_view symbol) {
    const auto [found, is_new] = places_.emplace(symbol, counts_.size());
    if (is_new) counts_.emplace_back(symbol, 0);
    ++counts_[found->second].second;
  }
  Vocabulary vocabulary() const {
    auto sorted = counts_;
    std::stable_sort(sorted.begin(), sorted.end(),
                     [](const auto& a, const auto& b) { return a.second > b.second; });
    std::vector<std::string> tokens;
    for (const auto& [symbol, count] : sorted) tokens.emplace_back(symbol);
    return Vocabulary(Unit::Symbol, std::move(tokens));
  }

 private:
  std::unordered_map<std::string_view, size_t> places_;
  std::vector<std::pair<std::string_view, int64_t>> counts_;
};

/// Pairs [begin, end) of a file, padded to the largest.
Split as_split(const PairFile& file, size_t begin, size_t end, const Corpus& corpus,
               int64_t dimensions) {
  int64_t height = 0, width = 0;
  bool alike = true;
  for (size_t i = begin; i < end; ++i) {
    const Pair &pair = file.pairs[i], &first = file.pairs[begin];
    alike = alike && pair.height == first.height && pair.width == first.width;
    height = std::max(height, pair.height);
    width = std::max(width, pair.width);
  }
  const auto count = int64_t(end - begin);
  DEQ_CHECK(
      double(count) * double(height) * double(width) <= kMostPlaces,
      "'{}': {} problems with room for the largest, of {} places, are too many; expected {:.3g}"
      " places at most",
      printable(file.name, 400), count, height * width, kMostPlaces);
  Split split{.tokens = at::zeros({count, height, width}, at::kLong),
              .targets = at::full({count, height, width}, -1, at::kLong),
              .answer = kEveryPosition};
  if (!alike) split.extents = at::empty({count, 2}, at::kLong);
  for (size_t i = begin; i < end; ++i) {
    const Pair& pair = file.pairs[i];
    const auto s = int64_t(i - begin);
    const auto fill = [&](std::string_view text, const at::Tensor& into,
                          const Vocabulary& vocabulary, bool is_answer) {
      int64_t* const first = into.data_ptr<int64_t>() + s * height * width;
      int64_t place = 0;
      walk(text, file.name, pair.line, [&](std::string_view symbol) {
        int64_t& id = first[place / pair.width * width + place % pair.width];
        ++place;
        if (is_answer && symbol == kNotScored) return;
        const auto found = vocabulary.find(symbol);
        DEQ_CHECK(found, "{}: symbol '{}' is not among the {} of the training split's {}",
                  file.at(pair), printable(symbol), vocabulary.size(),
                  is_answer ? "answers" : "problems");
        id = *found;
      });
    };
    fill(pair.problem, split.tokens, corpus.vocabulary, false);
    fill(pair.answer, split.targets, *corpus.answers, true);
    if (alike) continue;
    int64_t* const extent = split.extents.data_ptr<int64_t>() + 2 * s;
    extent[0] = pair.height;
    extent[1] = pair.width;
  }
  if (dimensions == 2) return split;
  split.tokens = split.tokens.squeeze(1);
  split.targets = split.targets.squeeze(1);
  if (!alike) split.extents = split.extents.narrow(1, 1, 1).contiguous();
  return split;
}

/// Consecutive parts of one file.
struct Cut {
  size_t valid, test, end;  // where each begins, and the last ends
};
Cut cut_of(const PairFile& file, const SplitShares& shares) {
  const size_t count = file.pairs.size();
  const auto part = [&](double share) {
    return std::max<size_t>(1, size_t(share * double(count)));
  };
  const size_t test = part(shares.test), valid = part(shares.valid);
  DEQ_CHECK(valid + test < count,
            "'{}' has {} problems, of which {} for validation and {} for test leave none to train "
            "on; expected more, or smaller shares",
            printable(file.name, 400), count, valid, test);
  return {count - test - valid, count - test, count};
}

/// The vocabularies, given or of the training problems.
void set_vocabularies(Corpus& corpus, const PairFile& file, size_t end, const Vocabulary* inputs,
                      const Vocabulary* answers) {
  if (inputs) {
    corpus.vocabulary = *inputs;
    corpus.answers = *answers;
    return;
  }
  Counts problems, solutions;
  for (size_t i = 0; i < end; ++i) {
    const Pair& pair = file.pairs[i];
    walk(pair.problem, file.name, pair.line, [&](std::string_view s) { problems.add(s); });
    walk(pair.answer, file.name, pair.line, [&](std::string_view s) {
      if (s != kNotScored) solutions.add(s);
    });
  }
  corpus.vocabulary = problems.vocabulary();
  corpus.answers = solutions.vocabulary();
}

Corpus load_file(const Pairs& task, const fs::path& path, const Vocabulary* inputs,
                 const Vocabulary* answers) {
  const auto file = read_pairs(path, task.dimensions);
  const size_t count = file.pairs.size();
  Corpus corpus;
  Cut cut{0, 0, count};
  if (!inputs || count >= kFewest) cut = cut_of(file, task.shares);
  set_vocabularies(corpus, file, cut.valid, inputs, answers);
  const auto part = [&](size_t begin, size_t end) {
    return as_split(file, begin, end, corpus, task.dimensions);
  };
  if (inputs) corpus.more.push_back({"all", [whole = part(0, count)] { return whole; }});
  if (cut.valid == 0) {  // too few to be cut
    corpus.train = corpus.valid = corpus.test = part(0, count);
    return corpus;
  }
  corpus.train = part(0, cut.valid);
  corpus.valid = part(cut.valid, cut.test);
  corpus.test = part(cut.test, cut.end);
  return corpus;
}

Corpus load_folder(const Pairs& task, const fs::path& folder, const Vocabulary* inputs,
                   const Vocabulary* answers) {
  Corpus corpus;
  const auto whole = [&](const PairFile& file) {
    return as_split(file, 0, file.pairs.size(), corpus, task.dimensions);
  };
  const PairFile train = read_pairs(folder / "train.tsv", task.dimensions);
  set_vocabularies(corpus, train, train.pairs.size(), inputs, answers);
  corpus.train = whole(train);
  corpus.valid = whole(read_pairs(folder / "valid.tsv", task.dimensions));
  corpus.test = whole(read_pairs(folder / "test.tsv", task.dimensions));
  std::vector<fs::path> more;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string stem = entry.path().stem().string();
    if (entry.path().extension() == ".tsv" && stem != "train" && stem != "valid" && stem != "test")
      more.push_back(entry.path());
  }
  std::sort(more.begin(), more.end());
  for (const fs::path& path : more) {
    corpus.more.push_back(
        {path.stem().string(), [path, dimensions = task.dimensions, inputs = corpus.vocabulary,
                                answers = corpus.answers] {
           Corpus named;
           named.vocabulary = inputs;
           named.answers = answers;
           const PairFile file = read_pairs(path, dimensions);
           return as_split(file, 0, file.pairs.size(), named, dimensions);
         }});
  }
  return corpus;
}

Corpus load_pairs(const Pairs& task, const fs::path& data, const Vocabulary* inputs,
                  const Vocabulary* answers) {
  validate(task, "Pairs");
  DEQ_CHECK(!data.empty(),
            "data is missing: task {} reads a file of problems and answers, or a folder with "
            "train.tsv, valid.tsv and test.tsv",
            Pairs::name);
  return fs::is_directory(data) ? load_folder(task, data, inputs, answers)
                                : load_file(task, data, inputs, answers);
}

}  // namespace

Corpus Pairs::load(const fs::path& data) const { return load_pairs(*this, data, nullptr, nullptr); }

Corpus Pairs::load(const fs::path& data, const Vocabulary& inputs,
                   const Vocabulary& answers) const {
  return load_pairs(*this, data, &inputs, &answers);
}

}  // namespace deq
