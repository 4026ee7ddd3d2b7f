// Each task's problems beside an independent solver, and what all such tasks promise.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "deq/tasks/bits.h"
#include "deq/tasks/listops.h"
#include "deq/tasks/mazes.h"
#include "deq/tasks/parity.h"
#include "deq/tasks/prefix_sums.h"
#include "deq/tasks/strings.h"
#include "deq/tasks/tasks.h"
#include "deq/tasks/word_problem.h"
#include "tests/base/scratch.h"

namespace deq {
namespace {

using testing::error_of;

bool same(const Split& a, const Split& b) {
  return at::equal(a.tokens, b.tokens) && at::equal(a.targets, b.targets);
}

TEST(PrefixSums, AreCumulativeSums) {
  const PrefixSums task{.problems = {.train = 10000}};
  const Corpus corpus = task.load("");
  EXPECT_TRUE(at::equal(corpus.train.tokens.cumsum(1).remainder(2), corpus.train.targets));
  EXPECT_EQ(corpus.train.tokens.sizes(), (at::IntArrayRef{10000, 32}));
  EXPECT_NEAR(corpus.train.tokens.to(at::kDouble).mean().item<double>(), 0.5, 0.005);
  EXPECT_EQ(corpus.train.answer, kEveryPosition);
  for (const int64_t length : {64, 128, 256, 512, 2048}) {
    const Split set = corpus.split(std::to_string(length));
    EXPECT_EQ(set.tokens.sizes(), (at::IntArrayRef{1000, length}));
    EXPECT_TRUE(at::equal(set.tokens.cumsum(1).remainder(2), set.targets));
  }
}

TEST(Parity, IsScoredAtTheLastPlaceAlone) {
  const Parity task;
  const Corpus corpus = task.load("");
  EXPECT_FALSE(corpus.draw) << "the same problems in every epoch";
  ASSERT_EQ(corpus.train.tokens.sizes(), (at::IntArrayRef{9000, 20}));
  EXPECT_EQ(corpus.splits(), (std::vector<std::string>{"train", "valid", "test", "40"}));
  EXPECT_EQ(corpus.split("40").tokens.sizes(), (at::IntArrayRef{1000, 40}));
  for (const std::string& name : corpus.splits()) {
    const Split split = corpus.split(name);
    const int64_t L = split.tokens.size(1);
    EXPECT_EQ(split.answer, 1);
    EXPECT_TRUE(at::equal(split.tokens.sum(1).remainder(2), split.targets.select(1, L - 1)));
    EXPECT_TRUE(split.targets.narrow(1, 0, L - 1).eq(-1).all().item<bool>());
    EXPECT_NEAR(split.targets.select(1, L - 1).to(at::kDouble).mean().item<double>(), 0.5, 0.05);
    EXPECT_NEAR(split.tokens.to(at::kDouble).mean().item<double>(), 0.5, 0.02);
  }
  Parity short_one = task;
  short_one.length = 3;
  short_one.test_lengths = {0};
  EXPECT_SAYS(error_of([&] { short_one.load(""); }), "task-test-lengths = 0; expected 1");
  EXPECT_SAYS(error_of([] { Parity().load("x.csv"); }), "task parity makes its own problems");
}

TEST(Parity, ChecksTheOneBitAndShowsIt) {
  const Corpus corpus = Parity{.length = 5}.load("");
  const at::Tensor problem = at::tensor({1, 0, 1, 1, 0}, at::kLong);
  at::Tensor answer = at::tensor({0, 0, 0, 0, 1}, at::kLong);
  EXPECT_EQ(Parity().check(problem, answer), "");
  answer[4] = 0;
  EXPECT_EQ(Parity().check(problem, answer), "3 of the bits are 1");
  answer[4] = -1;
  EXPECT_NE(Parity().check(problem, answer), "");
  const auto shown = [&](const at::Tensor& own) {
    return Parity().show({problem, own, corpus.vocabulary, corpus.answer_vocabulary()});
  };
  EXPECT_EQ(shown({}), "10110");
  EXPECT_EQ(shown(at::tensor({1, 1, 1, 1, 0}, at::kLong)), "0");
}

TEST(Problems, ASeedGivesTheSameAndEpochsDiffer) {
  const PrefixSums task{.problems = {.train = 50, .valid = 20, .test = 30}};
  const Corpus a = task.load(""), b = task.load("");
  EXPECT_TRUE(same(a.train, b.train));
  EXPECT_TRUE(same(a.draw(0), a.train));
  EXPECT_TRUE(same(a.draw(3), b.draw(3)));
  EXPECT_FALSE(same(a.draw(1), a.train));
  EXPECT_TRUE(same(a.split("64"), b.split("64")));
  EXPECT_FALSE(at::equal(a.valid.tokens.narrow(0, 0, 20), a.test.tokens.narrow(0, 0, 20)));
  EXPECT_FALSE(at::equal(a.valid.tokens, a.train.tokens.narrow(0, 0, 20)));
  PrefixSums other = task;
  other.problems.seed = 2;
  EXPECT_FALSE(same(other.load("").train, a.train));
  // A set does not depend on how many there are, of it or of others.
  other = task;
  other.problems.test = 10;
  other.problems.valid = 7;
  other.test_lengths = {64};
  const Corpus fewer = other.load("");
  EXPECT_TRUE(at::equal(fewer.test.tokens, a.test.tokens.narrow(0, 0, 10)));
  EXPECT_TRUE(at::equal(fewer.split("64").tokens, a.split("64").tokens.narrow(0, 0, 10)));
  // These bits are the same on every machine.
  EXPECT_EQ(a.train.tokens.narrow(0, 0, 1).sum().item<int64_t>(), 15);
}

TEST(Problems, ValidationMayBeOfAnotherSize) {
  const Corpus plain = PrefixSums{.length = 8}.load("");
  const Corpus longer = PrefixSums{.length = 8, .valid_length = 64}.load("");
  EXPECT_EQ(plain.valid.tokens.size(1), 8);
  EXPECT_EQ(longer.valid.tokens.size(1), 64);
  EXPECT_FALSE(at::equal(longer.valid.tokens, longer.split("64").tokens));  // no test problems
  EXPECT_TRUE(same(plain.train, longer.train));
  EXPECT_TRUE(same(plain.test, longer.test));
  const ProblemOptions few{.train = 8, .valid = 8, .test = 8};
  const auto valid = [](const auto& task) { return task.load("").valid.tokens; };
  EXPECT_EQ(valid(WordProblem{.valid_length = 40, .problems = few}).size(1), 40);
  EXPECT_EQ(valid(Mazes{.valid_size = 13, .problems = few}).size(2), Mazes::squares(13));
  EXPECT_EQ(valid(Strings{.valid_length = 30, .problems = few}).size(1), 2 * 30 + 1);
  EXPECT_EQ(valid(Bits{.valid_length = 30, .problems = few}).size(1), 2 * 30 + 1);
  EXPECT_EQ(valid(ListOps{.length = 32, .valid_depth = 8, .problems = few}).size(1), 4 * 32);
  EXPECT_SAYS(error_of([] { Mazes({.valid_size = 2}).load(""); }), "task-valid-size = 2");
  EXPECT_SAYS(error_of([] { Mazes({.size = 8}).load(""); }), "task-size = 8; expected an odd");
  EXPECT_SAYS(error_of([] { Mazes({.valid_size = 14}).load(""); }), "task-valid-size = 14; exp");
  EXPECT_SAYS(error_of([] {
                Mazes({.test_sizes = {13, 14}}).load("");
              }),
              "task-test-sizes = 14; expected an odd number");
  EXPECT_SAYS(error_of([] { ListOps({.length = 32, .valid_depth = 43}).load(""); }),
              "task-valid-depth = 43; expected 0 to 42");
}

TEST(Problems, APoolIsTrainedOnAgainAndAgain) {
  const PrefixSums task{.problems = {.train = 50, .pool = 8}};
  const Corpus corpus = task.load("");
  EXPECT_EQ(corpus.train.tokens.size(0), 8);
  EXPECT_FALSE(corpus.draw);
}

TEST(Problems, RefuseDataAndOtherVocabularies) {
  EXPECT_SAYS(error_of([] { PrefixSums().load("x.csv"); }),
              "data = 'x.csv'; expected none: task prefix-sums makes its own problems");
  EXPECT_SAYS(error_of([] {
                PrefixSums().load("", symbols({"a", "b"}), symbols({"0", "1"}));
              }),
              "expected those of task prefix-sums");
  EXPECT_SAYS(error_of([] {
                PrefixSums({.test_lengths = {64, 64}}).load("");
              }),
              "64 stands there twice");
  EXPECT_SAYS(error_of([] { PrefixSums({.test_lengths = {0}}).load(""); }),
              "task-test-lengths = 0");
  EXPECT_SAYS(error_of([] { WordProblem({.min_length = 9, .length = 8}).load(""); }),
              "task-min-length = 9");
}

// Independent: permutations applied to points, by the names of the elements.
TEST(WordProblem, AnswersAreThePermutationsOfPoints) {
  const std::map<Group, int64_t> orders{
      {Group::S5, 120}, {Group::A5, 60}, {Group::Z60, 60}, {Group::A4xZ5, 60}};
  for (const auto& [group, order] : orders) {
    const WordProblem task{.group = group, .problems = {.train = 10000}};
    const Corpus corpus = task.load("");
    ASSERT_EQ(corpus.vocabulary.size(), order);
    const auto tokens = corpus.train.tokens.accessor<int64_t, 2>();
    const auto targets = corpus.train.targets.accessor<int64_t, 2>();
    const auto digit = [](char c) { return c <= '9' ? c - '0' : c - 'a' + 10; };
    std::map<int64_t, int64_t> lengths;
    for (int64_t s = 0; s < 10000; ++s) {
      const int64_t length = corpus.train.extents[s][0].item<int64_t>();
      ++lengths[length];
      std::string points = corpus.vocabulary.token(0);  // the identity
      for (int64_t t = 0; t < 32; ++t) {
        if (t >= length) {
          ASSERT_EQ(targets[s][t], -1);
          continue;
        }
        const std::string& element = corpus.vocabulary.token(tokens[s][t]);
        for (char& point : points) point = element[size_t(digit(point))];
        ASSERT_EQ(corpus.answer_vocabulary().token(targets[s][t]), points) << s << " " << t;
      }
    }
    EXPECT_EQ(lengths.begin()->first, 2);
    EXPECT_EQ(lengths.rbegin()->first, 32);
    EXPECT_EQ(lengths.size(), 31u);
    EXPECT_FALSE(corpus.test.extents.defined());
  }
}

TEST(WordProblem, OnlySomeGroupsCommute) {
  const auto commutes = [](Group group) {
    const auto elements = elements_of(group);
    for (const auto& a : elements) {
      for (const auto& b : elements) {
        for (size_t i = 0; i < a.size(); ++i)
          if (b[size_t(a[i])] != a[size_t(b[i])]) return false;
      }
    }
    return true;
  };
  EXPECT_TRUE(commutes(Group::Z60));
  EXPECT_FALSE(commutes(Group::S5));
  EXPECT_FALSE(commutes(Group::A5));
  EXPECT_FALSE(commutes(Group::A4xZ5));
}

TEST(Mazes, AnswersAreTheShortestPaths) {
  const Mazes task{.problems = {.train = 10000}};
  const Corpus corpus = task.load("");
  ASSERT_EQ(corpus.train.tokens.sizes(), (at::IntArrayRef{10000, 11, 11}));
  for (int64_t s = 0; s < 10000; ++s) {
    const at::Tensor maze = corpus.train.tokens[s], path = corpus.train.targets[s];
    const at::Tensor open = maze.ne(Mazes::Wall);
    ASSERT_TRUE(at::equal(path.ge(0), open));
    ASSERT_TRUE(at::equal(path.clamp_min(0), path_through(maze))) << s;
    // A tree: 25 rooms and 24 passages, so that there is no other path.
    ASSERT_EQ(open.sum().item<int64_t>(), 49);
  }
  const Split large = corpus.split("33");
  EXPECT_EQ(large.tokens.sizes(), (at::IntArrayRef{1000, 35, 35}));
  EXPECT_TRUE(at::equal(large.targets[7].clamp_min(0), path_through(large.tokens[7])));
}

TEST(Mazes, TheFarthestOfMorePairsAreStartAndEndOfTraining) {
  const auto mean_length = [](const Mazes& task) {
    const Corpus corpus = task.load("");
    for (int64_t s = 0; s < 500; ++s) {
      EXPECT_TRUE(
          at::equal(corpus.train.targets[s].clamp_min(0), path_through(corpus.train.tokens[s])));
    }
    return std::pair{double(corpus.train.targets.eq(1).sum().item<int64_t>()) / 500,
                     double(corpus.valid.targets.eq(1).sum().item<int64_t>()) / 500};
  };
  const ProblemOptions few{.train = 500, .valid = 500, .test = 1};
  const auto one = mean_length({.problems = few});
  const auto two = mean_length({.pairs = 2, .problems = few});
  const auto all = mean_length({.pairs = 2000, .problems = few});
  EXPECT_NEAR(one.first, one.second, 0.07 * one.first);
  EXPECT_GT(two.first, 1.05 * one.first);
  EXPECT_GT(all.first, 1.2 * two.first);
  EXPECT_EQ(all.second, one.second) << "validation is of any two rooms";
}

TEST(Mazes, BadOnesAreErrors) {
  const at::Tensor walls = at::zeros({5, 5}, at::kLong);
  EXPECT_SAYS(error_of([&] { path_through(walls); }), "a maze with 0 starts; expected one");
  at::Tensor apart = walls.clone();
  apart[1][1] = Mazes::Start;
  apart[3][3] = Mazes::End;
  EXPECT_SAYS(error_of([&] { path_through(apart); }), "a maze without a path");
  EXPECT_SAYS(error_of([&] { path_through(walls[0]); }), "a maze of shape [5]");
}

TEST(Problems, EveryTaskOfProblemsIsListed) {
  std::set<std::string> names;
  for (const Task& task : TaskData::known()) {
    if (task->own_answers()) names.insert(task.name());
  }
  EXPECT_EQ(names,
            (std::set<std::string>{"prefix-sums", "parity", "word-problem", "mazes", "sudoku",
                                   "pairs", "strings", "bits", "listops", "images", "masked"}));
}

}  // namespace
}  // namespace deq
