// ListOps beside a reader of its own, and the published test file.
#include "deq/tasks/listops.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <set>
#include <sstream>

#include "deq/tasks/tasks.h"
#include "tests/base/scratch.h"

namespace deq {
namespace {

using testing::error_of;
using testing::Scratch;
using testing::spill;

namespace fs = std::filesystem;

/// By recursion on words, in floating point, as the published generator computes it.
class Recursive {
 public:
  explicit Recursive(std::vector<std::string> words) : words_(std::move(words)) {}

  int64_t depth = 0;              ///< of what has been read
  std::vector<int64_t> brackets;  ///< the values of what closed, in order

  int64_t read(int64_t level = 0) {
    const std::string word = words_.at(next_++);
    if (word[0] != '[') return std::stoll(word);
    depth = std::max(depth, level + 1);
    std::vector<double> values;
    while (words_.at(next_) != "]") values.push_back(double(read(level + 1)));
    ++next_;
    brackets.push_back(int64_t(value(word, values)));
    return brackets.back();
  }
  bool at_end() const { return next_ == words_.size(); }

 private:
  static double value(const std::string& word, std::vector<double> values) {
    if (word == "[SM") {
      double sum = 0;
      for (const double each : values) sum += each;
      return std::fmod(sum, 10);
    }
    if (word == "[MIN") return *std::min_element(values.begin(), values.end());
    if (word == "[MAX") return *std::max_element(values.begin(), values.end());
    const size_t n = values.size();
    std::nth_element(values.begin(), values.begin() + long(n / 2), values.end());
    const double upper = values[n / 2];
    if (n % 2) return upper;
    return std::floor((upper + *std::max_element(values.begin(), values.begin() + long(n / 2))) /
                      2);
  }

  std::vector<std::string> words_;
  size_t next_ = 0;
};

/// Words of a row but for its blanks.
std::vector<std::string> words_of(const Split& split, int64_t s) {
  static const Vocabulary inputs = ListOps().vocabularies().first;
  const auto row = split.tokens.accessor<int64_t, 2>()[s];
  std::vector<std::string> words;
  for (int64_t t = 0; t < row.size(0); ++t) {
    const std::string& word = inputs.token(row[t]);
    if (word != "_") words.push_back(word);
  }
  return words;
}

/// Checks row s; returns the expression's depth.
int64_t check_row(const Split& split, int64_t s, bool every) {
  const std::vector<std::string> words = words_of(split, s);
  Recursive reader(words);
  const int64_t value = reader.read();
  EXPECT_TRUE(reader.at_end());
  std::vector<int64_t> expected(size_t(split.tokens.size(1)), -1);
  size_t bracket = 0;
  for (size_t t = 0; every && t < words.size(); ++t)
    if (words[t] == "]") expected[t] = reader.brackets[bracket++];
  expected[words.size() - 1] = value;
  const auto* found = split.targets.data_ptr<int64_t>() + s * split.targets.size(1);
  EXPECT_TRUE(std::equal(expected.begin(), expected.end(), found)) << s;
  return reader.depth;
}

TEST(ListOps, ValuesAreThoseOfARecursiveReader) {
  for (const bool every : {false, true}) {
    const ListOps task{.every = every, .problems = {.train = 10000, .valid = 20, .test = 20}};
    const Corpus corpus = task.load("");
    std::map<int64_t, int64_t> depths, places;
    for (int64_t s = 0; s < 10000; ++s) {
      ++depths[check_row(corpus.train, s, every)];
      const int64_t room = corpus.train.extents[s][0].item<int64_t>();
      ++places[room];
      ASSERT_LE(int64_t(words_of(corpus.train, s).size()), room);
    }
    EXPECT_EQ(depths.size(), 6u);
    EXPECT_EQ(depths.begin()->first, 1);
    EXPECT_EQ(places.size(), 5u) << "8, 16, 32, 64, 128";
    EXPECT_EQ(places.rbegin()->first, 128);
    for (const auto& [depth, count] : depths) EXPECT_GT(count, 300) << depth;
    for (int64_t s = 0; s < 20; ++s) EXPECT_EQ(check_row(corpus.test, s, every), 6);
    for (const int64_t depth : {8, 10, 15}) {
      const Split set = corpus.split(std::to_string(depth));
      for (int64_t s = 0; s < 20; ++s) EXPECT_EQ(check_row(set, s, every), depth);
    }
    EXPECT_EQ(at::equal(corpus.train.targets.ge(0).sum(1), at::ones({10000}, at::kLong)), !every);
  }
}

// Shapes as published: 2 to 5 arguments, each number of them, and operations, about as often.
TEST(ListOps, ExpressionsHaveThePublishedShape) {
  const ListOps task{.depth = 2, .length = 512, .problems = {.train = 4000}};
  const Corpus corpus = task.load("");
  std::map<size_t, int64_t> arguments;
  std::map<std::string, int64_t> names;
  int64_t simple = 0;
  for (int64_t s = 0; s < 4000; ++s) {
    const auto words = words_of(corpus.train, s);
    for (const std::string& word : words) ++names[word];
    if (std::count(words.begin(), words.end(), "]") > 1) continue;
    ++simple;
    ++arguments[words.size() - 2];
  }
  ASSERT_GT(simple, 300);
  EXPECT_EQ(arguments.size(), 4u);
  for (const auto& [count, seen] : arguments) {
    EXPECT_TRUE(count >= 2 && count <= 5);
    EXPECT_NEAR(double(seen) / double(simple), 0.25, 0.08) << count;
  }
  for (const char* name : {"[MIN", "[MAX", "[MED", "[SM"})
    EXPECT_NEAR(4.0 * double(names[name]) / double(names["]"]), 1, 0.1) << name;
  EXPECT_EQ(names.size(), 15u);
}

TEST(ListOps, ALengthIsKept) {
  const ListOps task{.depth = 6, .length = 19, .test_depths = {25}, .problems = {.train = 500}};
  const Corpus corpus = task.load("");
  EXPECT_EQ(corpus.train.tokens.size(1), 19);
  EXPECT_EQ(corpus.test.tokens.size(1), 19);
  EXPECT_EQ(check_row(corpus.test, 0, false), 6);
  const Split deep = corpus.split("25");
  EXPECT_EQ(deep.tokens.size(1), 76);
  EXPECT_EQ(check_row(deep, 0, false), 25);
}

/// The published test file, or nothing.
fs::path published() {
  const char* folder = std::getenv("DEQ_DATA_DIR");
  return folder ? fs::path(folder) / "listops" / "test_d20s.tsv" : fs::path();
}

TEST(ListOps, AllPublishedValuesAreReproduced) {
  const fs::path path = published();
  if (path.empty() || !fs::exists(path)) GTEST_SKIP() << "DEQ_DATA_DIR has no listops";
  std::istringstream lines(testing::slurp(path));
  const Vocabulary inputs = ListOps().vocabularies().first;
  int64_t count = 0;
  for (std::string line; std::getline(lines, line); ++count) {
    std::vector<int64_t> symbols;
    std::istringstream words(line.substr(2));
    for (std::string word; words >> word;)
      if (word != "(" && word != ")") symbols.push_back(inputs.find(word).value());
    ASSERT_EQ(evaluate_listops(symbols).value, line[0] - '0') << count;
  }
  EXPECT_EQ(count, 10000);

  for (const bool every : {false, true}) {
    const ListOps task{.every = every};
    const Corpus corpus = task.load(path, inputs, task.vocabularies().second);
    EXPECT_EQ(corpus.test.tokens.size(0), 10000);
    EXPECT_EQ(corpus.splits().size(), 3u + 20u);
    int64_t problems = 0;
    for (const NamedSplit& set : corpus.more) {
      const Split split = set.make();
      problems += split.tokens.size(0);
      EXPECT_EQ(check_row(split, split.tokens.size(0) - 1, every), std::stoll(set.name));
    }
    EXPECT_EQ(problems, 10000);
    for (int64_t s = 0; s < 300; ++s) {
      check_row(corpus.test, s, every);
      EXPECT_EQ(corpus.test.extents[s][0].item<int64_t>(),
                int64_t(words_of(corpus.test, s).size()));
    }
  }
}

TEST(ListOps, AnExpressionThatDoesNotParseIsOneLine) {
  const ListOps task;
  const Vocabulary inputs = task.vocabularies().first;
  const auto says = [&](const std::string& text) {
    return error_of([&] { task.read_text("[SM 1 2 ]\n" + text, "e.txt", inputs); });
  };
  EXPECT_SAYS(says("[MAX 1 [MUL 2 ] ]"),
              "e.txt, line 2, column 8: unknown symbol '[MUL'; known: 0");
  EXPECT_SAYS(says("[MAX 1 2 ] ]"), "e.txt, line 2, column 12: more behind an expression");
  EXPECT_SAYS(says("( ( [MAX 1 ) 2"), "e.txt, line 2, column 15: an open operation; expected ]");
  EXPECT_SAYS(says("[MAX 1 [MIN ] ]"), "line 2, column 13: an operation without arguments");
  EXPECT_SAYS(says("]"), "line 2, column 1: a ] that closes nothing");
  EXPECT_SAYS(says("( )"), "line 2, column 4: no expression; expected one");
  EXPECT_SAYS(says("[MAX _ ]"), "line 2, column 6: unknown symbol '_'");
  EXPECT_SAYS(error_of([&] { task.read_text(" ", "e.txt", inputs); }), "e.txt: no expression");
  EXPECT_SAYS(error_of([] { evaluate_listops({1, 2}); }), "symbol 2: more behind");
  EXPECT_SAYS(error_of([] { evaluate_listops({ListOps::Blank}); }), "symbol 1: a blank");
}

TEST(ListOps, BadFilesAndOptionsAreOneLine) {
  const Scratch scratch;
  const ListOps task;
  const auto says = [&](const std::string& text) {
    spill(scratch / "x.tsv", text);
    return error_of([&] {
      task.load(scratch / "x.tsv", task.vocabularies().first, task.vocabularies().second);
    });
  };
  EXPECT_SAYS(says("3\t[SM 1 2 ]\n4\t[SM 1 2 ]\n"),
              "x.tsv, line 2: an expression of value 3; the file has 4");
  EXPECT_SAYS(says("3\t[SM 1 2 ]\n3\t[SM 1 2\n"), "x.tsv, line 2, column 10: an open operation");
  EXPECT_SAYS(says("[SM 1 2 ]\n"), "x.tsv, line 1: '[SM 1 2 ]'; expected a value, 0 to 9, a tab");
  EXPECT_SAYS(says(""), "has no expressions");
  std::string many = "3\t3\n0\t[SM";
  for (int i = 0; i < 65535; ++i) many += " 0";
  many += " ]\n";
  for (int i = 0; i < 8300; ++i) many += "3\t3\n";
  EXPECT_SAYS(says(many),
              "x.tsv, line 8192: 8192 expressions with room for the longest so far, of 65537 "
              "symbols in line 2, are too many; expected 5.37e+08");
  EXPECT_SAYS(says("3\t[SM 1 2 ]\n\xff"), "x.tsv, line 2: byte 0xff; expected UTF-8");
  spill(scratch / "x.tsv",
        "\xEF\xBB\xBF"
        "3\t[SM 1 2 ]\r\n\r\n");
  const auto [inputs, answers] = task.vocabularies();
  EXPECT_EQ(task.load(scratch / "x.tsv", inputs, answers).test.tokens.size(0), 1);
  EXPECT_SAYS(error_of([&] { task.load(scratch / "x.tsv"); }), "task listops makes its own");
  EXPECT_SAYS(error_of([] { ListOps({.depth = 6, .length = 18}).load(""); }),
              "task-length = 18: an expression of depth 6 has 19 symbols at least");
  EXPECT_SAYS(error_of([] { ListOps({.test_depths = {6}}).load(""); }), "task-test-depths = 6");
  EXPECT_SAYS(error_of([] { ListOps({.test_depths = {171}}).load(""); }),
              "task-test-depths = 171; expected 1 to 170");
}

TEST(ListOps, AnswersAreShownAndChecked) {
  const ListOps last, every{.every = true};
  const auto [inputs, answers] = last.vocabularies();
  const at::Tensor problem = last.read_text("[MAX 2 [MIN 4 7 ] 0 ]", "x", inputs)[0].tokens;
  const at::Tensor padded = at::cat({problem, at::full({3}, int64_t{ListOps::Blank}, at::kLong)});
  at::Tensor answer = at::full({12}, 9, at::kLong);
  answer[5] = answer[7] = 4;
  EXPECT_EQ(problem.size(0), 8);
  EXPECT_EQ(last.show({padded, {}, inputs, answers}), "[MAX 2 [MIN 4 7 ] 0 ]");
  EXPECT_EQ(last.show({padded, answer, inputs, answers}), "4");
  EXPECT_EQ(every.show({padded, answer, inputs, answers}), "4 4");
  EXPECT_EQ(last.check(padded, answer), "");
  answer[5] = 7;
  EXPECT_EQ(last.check(padded, answer), "");
  EXPECT_EQ(every.check(padded, answer), "another value at symbol 6");
  answer[7] = 7;
  EXPECT_EQ(last.check(padded, answer), "another value of the whole");
}

}  // namespace
}  // namespace deq
