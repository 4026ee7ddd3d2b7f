// Strings and vectors of bits beside independent ways to the same answer.
#include "deq/tasks/strings.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "deq/tasks/bits.h"
#include "deq/tasks/tasks.h"
#include "tests/base/scratch.h"

namespace deq {
namespace {

using testing::error_of;

using Ids = std::vector<int64_t>;

/// A row as far as it is read.
Ids row_of(const at::Tensor& all, const Split& split, int64_t s) {
  const int64_t length =
      split.extents.defined() ? split.extents[s][0].item<int64_t>() : all.size(1);
  const auto* first = all.data_ptr<int64_t>() + s * all.size(1);
  return {first, first + length};
}

/// A problem by its tokens' names: what stands before the end, and the targets behind it.
struct Spoken {
  std::string problem;
  std::vector<std::string> symbols, answer;
};
Spoken spoken(const Corpus& corpus, const Split& split, int64_t s) {
  const Ids tokens = row_of(split.tokens, split, s), targets = row_of(split.targets, split, s);
  Spoken found;
  size_t at = 0;
  for (; corpus.vocabulary.token(tokens[at]) != "="; ++at) {
    EXPECT_EQ(targets[at], -1);
    found.symbols.push_back(corpus.vocabulary.token(tokens[at]));
    found.problem += found.symbols.back();
  }
  EXPECT_EQ(targets[at], -1);
  for (++at; at < tokens.size(); ++at) {
    EXPECT_EQ(corpus.vocabulary.token(tokens[at]), "_");
    EXPECT_GE(targets[at], 0) << "a blank that is not scored";
    found.answer.push_back(corpus.answer_vocabulary().token(targets[at]));
  }
  return found;
}

const ProblemOptions kMany{.train = 10000, .valid = 10, .test = 50};

/// Calls `use` for every training problem, and for those of each test set.
template <class Use>
void for_each_problem(const Task& task, const Use& use) {
  const Corpus corpus = load(task, "");
  for (int64_t s = 0; s < corpus.train.tokens.size(0); ++s) use(spoken(corpus, corpus.train, s));
  for (const NamedSplit& set : corpus.more) {
    const Split split = set.make();
    EXPECT_FALSE(split.extents.defined());
    for (int64_t s = 0; s < split.tokens.size(0); ++s) {
      const Spoken found = spoken(corpus, split, s);
      const auto digits = int64_t(found.symbols.size());
      EXPECT_TRUE(digits == std::stoll(set.name) || digits == 2 * std::stoll(set.name) + 1);
      use(found);
    }
  }
}

TEST(Strings, AreCopiedReversedAndSorted) {
  using Change = std::function<void(std::vector<std::string>&)>;
  const std::vector<std::pair<StringOperation, Change>> operations{
      {StringOperation::Copy, [](auto&) {}},
      {StringOperation::Reverse,
       [](auto& s) {
         s = {s.rbegin(), s.rend()};
       }},
      {StringOperation::Sort, [](auto& s) {  // by counting
         std::map<std::string, int> counts;
         for (const auto& each : s) ++counts[each];
         s.clear();
         for (const auto& [each, count] : counts) s.insert(s.end(), size_t(count), each);
       }}};
  for (const auto& [operation, change] : operations) {
    std::set<size_t> lengths;
    std::map<std::string, int64_t> seen;
    for_each_problem(Strings{.operation = operation, .problems = kMany}, [&](const Spoken& found) {
      auto expected = found.symbols;
      change(expected);
      ASSERT_EQ(found.answer, expected) << found.problem;
      lengths.insert(expected.size());
      for (const auto& each : expected) ++seen[each];
    });
    EXPECT_EQ(lengths.size(), 22u) << "1 to 20, 40, 80";
    EXPECT_EQ(*lengths.begin(), 1u);
    EXPECT_EQ(seen.size(), 10u);
    for (const auto& [symbol, count] : seen) EXPECT_NEAR(double(count), 11100, 500) << symbol;
  }
}

/// A number modulo a prime, of digits from the last on.
uint64_t remainder_of(const std::vector<std::string>& digits, uint64_t base, uint64_t prime) {
  uint64_t value = 0;
  for (auto digit = digits.rbegin(); digit != digits.rend(); ++digit)
    value = (value * base + uint64_t(std::stoi(*digit, nullptr, 36))) % prime;
  return value;
}

// Numbers below base^160 that agree modulo several primes of 31 bits would differ by chance once in
// 2^93; which digits they have is then settled, since all are below the base.
TEST(Strings, NumbersAreAddedAndMultiplied) {
  const uint64_t primes[] = {2147483647, 2147483629, 2147483587};
  for (const auto operation : {StringOperation::Add, StringOperation::Multiply}) {
    for (const int64_t base : {2, 10, 36}) {
      const Strings task{.operation = operation, .symbols = base, .problems = kMany};
      std::set<size_t> lengths;
      for_each_problem(task, [&](const Spoken& found) {
        const auto between = std::find_if(found.symbols.begin(), found.symbols.end(),
                                          [](auto& s) { return s == "+" || s == "*"; });
        const std::vector<std::string> a(found.symbols.begin(), between),
            b(between + 1, found.symbols.end());
        const bool add = operation == StringOperation::Add;
        ASSERT_EQ(*between, add ? "+" : "*");
        ASSERT_EQ(a.size(), b.size());
        ASSERT_EQ(found.answer.size(), add ? a.size() + 1 : 2 * a.size());
        for (const uint64_t prime : primes) {
          const auto of = [&](const auto& digits) {
            return remainder_of(digits, uint64_t(base), prime);
          };
          ASSERT_EQ(of(found.answer), (add ? of(a) + of(b) : of(a) * of(b)) % prime)
              << found.problem;
        }
        lengths.insert(a.size());
      });
      EXPECT_EQ(lengths.size(), 22u);
    }
  }
}

TEST(Strings, ArePeoplesNumbers) {
  const Task add = Strings{.operation = StringOperation::Add},
             multiply = Strings{.operation = StringOperation::Multiply};
  const auto [inputs, answers] = *add->vocabularies();
  const auto read = add->read("27+85\n7+850=\n12+34=___\n", "x", inputs);
  ASSERT_EQ(read.size(), 3u);
  EXPECT_EQ(write_symbols(read[0].tokens, inputs, {""}), "72+58=___");
  EXPECT_EQ(write_symbols(read[1].tokens, inputs, {""}), "700+058=____");
  EXPECT_EQ(read[2].line, 3);
  EXPECT_EQ(read[2].tokens.size(0), 9);
  EXPECT_EQ(add->show({read[0].tokens, {}, inputs, answers}), "27+85");
  at::Tensor answer = at::full({9}, 9, at::kLong);
  answer[6] = 2;
  answer[7] = answer[8] = 1;
  EXPECT_EQ(add->show({read[0].tokens, answer, inputs, answers}), "112");
  EXPECT_EQ(add->check(read[0].tokens, answer), "");
  answer[7] = 0;
  EXPECT_EQ(add->check(read[0].tokens, answer), "another symbol at place 2 of the answer");
  const Vocabulary other = multiply->vocabularies()->first;
  EXPECT_EQ(write_symbols(multiply->read("3*12", "x", other)[0].tokens, other, {""}), "30*21=____");
}

TEST(Strings, BadOnesAreOneLine) {
  const Strings add{.operation = StringOperation::Add}, copy;
  const auto says = [](const Strings& task, const std::string& text) {
    return error_of([&] { task.read_text(text, "s.txt", task.vocabularies().first); });
  };
  EXPECT_SAYS(says(copy, "123\n12x\n"), "s.txt, line 2: unknown symbol 'x'; known: 0 1 2");
  EXPECT_SAYS(says(copy, "1=2"), "s.txt, line 1: a '=' within the string; expected it behind");
  EXPECT_SAYS(says(copy, "1_2"), "a '_' within");
  EXPECT_SAYS(says(copy, "=__"), "nothing before the =");
  EXPECT_SAYS(says(copy, "\n \n"), "s.txt: no string; expected one at least");
  EXPECT_SAYS(says(copy, "1+2"), "unknown symbol '+'");
  for (const char* text : {"12", "1+2+3", "+2", "2+"})
    EXPECT_SAYS(says(add, text), "s.txt, line 1: not two numbers; expected a + b");
  EXPECT_SAYS(error_of([] { Strings({.min_length = 9, .length = 8}).load(""); }),
              "task-min-length = 9; expected at most task-length = 8");
  EXPECT_SAYS(error_of([] { Strings({.test_lengths = {0}}).load(""); }), "task-test-lengths = 0");
  EXPECT_SAYS(error_of([] { Strings({.symbols = 37}).load(""); }), "symbols");
  EXPECT_SAYS(error_of([] { Strings().load("file"); }), "task strings makes its own problems");
  EXPECT_SAYS(
      error_of([&] { add.load("", copy.vocabularies().first, copy.vocabularies().second); }),
      "expected those of task strings");
}

TEST(Strings, OptionsAreInForce) {
  const Corpus few =
      Strings{.symbols = 3, .min_length = 4, .length = 5, .test_lengths = {7}}.load("");
  EXPECT_EQ(few.vocabulary.size(), 5);
  EXPECT_EQ(few.answer_vocabulary().size(), 3);
  EXPECT_EQ(few.train.extents.min().item<int64_t>(), 9);
  EXPECT_EQ(few.train.tokens.size(1), 11);
  EXPECT_EQ(few.test.tokens.size(1), 11);
  EXPECT_EQ(few.splits(), (std::vector<std::string>{"train", "valid", "test", "7"}));
  EXPECT_EQ(few.split("7").tokens.size(1), 15);
}

TEST(Bits, AreTheSameVectorsAgain) {
  std::set<size_t> lengths;
  std::vector<int64_t> ones(8, 0);
  int64_t vectors = 0;
  for_each_problem(Bits{.problems = kMany}, [&](const Spoken& found) {
    ASSERT_EQ(found.answer, found.symbols);
    lengths.insert(found.answer.size());
    for (const std::string& each : found.answer) {
      ASSERT_EQ(each.size(), 8u);
      ++vectors;
      for (size_t bit = 0; bit < 8; ++bit) ones[bit] += each[bit] == '1';
    }
  });
  EXPECT_EQ(lengths.size(), 23u) << "1 to 20, 40, 80, 120";
  for (const int64_t count : ones) EXPECT_NEAR(double(count) / double(vectors), 0.5, 0.006);
}

TEST(Bits, OptionsAreInForce) {
  const Corpus few = Bits{.bits = 2, .min_length = 4, .length = 5, .test_lengths = {7}}.load("");
  EXPECT_EQ(few.vocabulary.size(), 6);
  EXPECT_EQ(few.train.extents.min().item<int64_t>(), 9);
  EXPECT_EQ(few.train.tokens.size(1), 11);
  EXPECT_EQ(few.test.tokens.size(1), 11);
  EXPECT_EQ(few.splits(), (std::vector<std::string>{"train", "valid", "test", "7"}));
  EXPECT_EQ(few.split("7").tokens.size(1), 15);
  EXPECT_SAYS(error_of([] { Bits({.min_length = 9, .length = 8}).load(""); }),
              "task-min-length = 9; expected at most task-length = 8");
  EXPECT_EQ(Task(Bits())->reading(), "bits");
  EXPECT_EQ(Task(Strings())->reading(), "symbols");
}

TEST(Bits, AreNamedByTheirBits) {
  const Bits task{.bits = 3};
  const auto [inputs, answers] = task.vocabularies();
  EXPECT_EQ(inputs.size(), 10);
  EXPECT_EQ(task.known_vocabulary(), 10);
  EXPECT_EQ(answers.token(6), "110");
  const auto read = task.read_text("110 001\n\n000\n", "b.txt", inputs);
  ASSERT_EQ(read.size(), 2u);
  EXPECT_TRUE(at::equal(read[0].tokens, at::tensor({6, 1, 9, 8, 8}, at::kLong)));
  EXPECT_EQ(read[1].line, 3);
  EXPECT_EQ(task.show({read[0].tokens, {}, inputs, answers}), "110 001");
  const at::Tensor answer = at::tensor({0, 0, 0, 6, 3}, at::kLong);
  EXPECT_EQ(task.show({read[0].tokens, answer, inputs, answers}), "110 011");
  EXPECT_EQ(task.show({read[0].tokens, answer, inputs, answers, true}), "110\n011");
  EXPECT_EQ(task.check(read[0].tokens, answer), "another symbol at place 2 of the answer");
  EXPECT_SAYS(error_of([&] { task.read_text("110 0011", "b.txt", inputs); }),
              "b.txt, line 1: unknown symbol '0011'");
  EXPECT_SAYS(error_of([&] { task.read_text("110 =", "b.txt", inputs); }),
              "b.txt, line 1: a blank or an end among the vectors");
  EXPECT_SAYS(error_of([] { Bits({.test_lengths = {1 << 20}}).load(""); }), "task-test-lengths");
}

}  // namespace
}  // namespace deq
