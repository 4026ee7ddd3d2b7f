#include "deq/data/corpus.h"

#include <gtest/gtest.h>

#include <ctime>
#include <random>
#include <sstream>

#include "deq/tasks/bytes.h"
#include "deq/tasks/characters.h"
#include "deq/tasks/tasks.h"
#include "deq/tasks/words.h"
#include "tests/base/scratch.h"

namespace deq {
namespace {

using testing::error_of;
using testing::Scratch;
using testing::spill;

std::vector<int64_t> ids_of(const at::Tensor& tensor) {
  EXPECT_EQ(tensor.dim(), 1);
  EXPECT_EQ(tensor.scalar_type(), at::kLong);
  const int64_t* first = tensor.data_ptr<int64_t>();
  return {first, first + tensor.numel()};
}

void spill_splits(const Scratch& scratch, const std::string& train, const std::string& valid,
                  const std::string& test) {
  spill(scratch / "train.txt", train);
  spill(scratch / "valid.txt", valid);
  spill(scratch / "test.txt", test);
}

/// Words the plain way: a line at a time through a stream.
std::vector<std::string> plain_words(const std::string& text) {
  std::vector<std::string> words;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream in(line);
    for (std::string word; in >> word;) words.push_back(word);
    words.push_back("<eos>");
  }
  return words;
}

std::vector<std::string> plain_order(const std::vector<std::string>& words, int64_t min_count) {
  std::vector<std::string> order;
  std::map<std::string, int64_t> counts;
  for (const auto& word : words) ++counts[word];
  std::map<std::string, int64_t> folded;
  for (const auto& word : words) {
    const bool rare = counts[word] < min_count && word != "<eos>";
    const std::string shown = rare ? "<unk>" : word;
    if (folded[shown]++ == 0) order.push_back(shown);
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](const auto& a, const auto& b) { return folded[a] > folded[b]; });
  return order;
}

std::string random_text(std::mt19937& random, size_t words, int kinds) {
  const char* spaces[] = {" ", " ", " ", "  ", "\t", "\n", " \n", "\n\n", "\r\n"};
  const char* letters[] = {"a", "b", "ä", "戦", "😀", "-"};
  std::string text;
  for (size_t i = 0; i < words; ++i) {
    for (int kind = int(random() % kinds) + 1; kind > 0; kind /= 5) text += letters[kind % 6];
    text += spaces[random() % std::size(spaces)];
  }
  return text;
}

TEST(Words, AgreeWithThePlainWay) {
  Scratch scratch;
  std::mt19937 random(1);
  for (int trial = 0; trial < 60; ++trial) {
    std::string texts[3];
    for (std::string& text : texts) text = "<unk> x\n" + random_text(random, random() % 80, 40);
    spill_splits(scratch, texts[0], texts[1], texts[2]);
    const int64_t min_count = 1 + int64_t(random() % 3);
    const Corpus corpus = Words{.min_count = min_count}.load(scratch.folder());
    const auto order = plain_order(plain_words(texts[0]), min_count);
    ASSERT_EQ(corpus.vocabulary.size(), int64_t(order.size()));
    for (size_t id = 0; id < order.size(); ++id) {
      // With rare words folded, <unk> may come first at another place; the rest keep their order.
      if (min_count == 1) {
        ASSERT_EQ(corpus.vocabulary.token(int64_t(id)), order[id]);
      }
      ASSERT_TRUE(corpus.vocabulary.find(order[id]).has_value());
    }
    const at::Tensor* splits[] = {&corpus.train.tokens, &corpus.valid.tokens, &corpus.test.tokens};
    for (int split = 0; split < 3; ++split) {
      std::vector<int64_t> expected;
      for (const auto& word : plain_words(texts[split])) {
        expected.push_back(corpus.vocabulary.find(word).value_or(*corpus.vocabulary.find("<unk>")));
      }
      ASSERT_EQ(ids_of(*splits[split]), expected);
    }
    const at::Tensor counts = at::bincount(corpus.train.tokens);
    ASSERT_TRUE((counts.slice(0, 1) <= counts.slice(0, 0, -1)).all().item<bool>());
  }
}

TEST(Words, PiecesOfALargeFileCutNoWord) {
  Scratch scratch;
  std::mt19937 random(2);
  const std::string text = "<unk>\n" + random_text(random, 300000, 4000);
  ASSERT_GT(text.size(), size_t{3} << 20);  // several pieces
  std::string one_line = text;
  std::replace(one_line.begin(), one_line.end(), '\n', ' ');
  spill_splits(scratch, text, one_line, std::string(size_t{5} << 20, 'a') + " b");
  const Corpus corpus = Words().load(scratch.folder());
  EXPECT_EQ(ids_of(corpus.train.tokens), corpus.vocabulary.encode(text));
  EXPECT_EQ(ids_of(corpus.valid.tokens), corpus.vocabulary.encode(one_line + "\n"));
  EXPECT_EQ(corpus.test.tokens.numel(), 3);
}

/// Of this process alone, whoever else is at work on the machine.
double processor_seconds_to_load(const std::filesystem::path& folder) {
  const std::clock_t start = std::clock();
  Words().load(folder);
  return double(std::clock() - start) / CLOCKS_PER_SEC;
}

// One line without a space: eight times the bytes in about eight times the time, not in 64 times.
TEST(Words, AHugeWordTakesTimeInProportion) {
  Scratch small, large;
  spill_splits(small, std::string(size_t{6} << 20, 'a') + " <unk>", "a\n", "a\n");
  spill_splits(large, std::string(size_t{48} << 20, 'a') + " <unk>", "a\n", "a\n");
  double least = 1e9;  // of several: others may fill the caches
  for (int trial = 0; trial < 5 && least > 14; ++trial) {
    const double one = processor_seconds_to_load(small.folder());
    least = std::min(least, processor_seconds_to_load(large.folder()) / one);
  }
  EXPECT_LT(least, 14);
}

TEST(Words, EveryLineEndsOnce) {
  Scratch scratch;
  spill_splits(scratch,
               "\xEF\xBB\xBF"
               "a b\n\n \nb",
               "a\n", "b\n\n");
  const Corpus corpus = Words().load(scratch.folder());
  EXPECT_EQ(corpus.vocabulary.decode(ids_of(corpus.train.tokens)), "a b\n\n\nb\n");
  EXPECT_EQ(corpus.vocabulary.serialize(), "# deq vocabulary: word\n<eos>\nb\na\n");
  EXPECT_EQ(corpus.valid.tokens.numel(), 2);
  EXPECT_EQ(corpus.test.tokens.numel(), 3);
}

TEST(Words, FindsTheUsualNames) {
  for (const std::string names :
       {"ptb.train.txt ptb.valid.txt ptb.test.txt", "train.txt valid.txt test.txt",
        "wiki.train.tokens wiki.valid.tokens wiki.test.tokens"}) {
    Scratch scratch;
    std::istringstream in(names);
    for (std::string name; in >> name;) spill(scratch / name, name == "none" ? "" : "a b\n");
    EXPECT_EQ(Words().load(scratch.folder()).test.tokens.numel(), 3);
    std::filesystem::remove(scratch / scratch.names().back());
    EXPECT_SAYS(error_of([&] { Words().load(scratch.folder()); }), "but no ");
  }
}

TEST(Words, RefuseBadInput) {
  Scratch scratch;
  const auto says = [&](const std::string& train, const std::string& valid) {
    spill_splits(scratch, train, valid, "a\n");
    return error_of([&] { Words().load(scratch.folder()); });
  };
  EXPECT_SAYS(error_of([&] { Words().load(scratch / "none"); }), "no data at '");
  EXPECT_SAYS(error_of([&] { Words().load(scratch.folder()); }),
              "looked for ptb.train.txt, ptb.valid.txt, ptb.test.txt; or train.txt, valid.txt, "
              "test.txt; or wiki.train.tokens");
  EXPECT_SAYS(says("", "a\n"), "train.txt is empty");
  EXPECT_SAYS(says("a\n", "\n"), "the validation split of ");
  EXPECT_SAYS(says("a\n", "\n"), "has 1 word; expected at least 2");
  EXPECT_SAYS(says("a b\n", std::string("a \0\n", 4)), "valid.txt: byte 2 is NUL");
  EXPECT_SAYS(says("a\xff\n", "a\n"), "train.txt: byte 1 (0xff) is not UTF-8");
  EXPECT_SAYS(says("a\xc3", "a\n"), "train.txt: byte 1 (0xc3) is not UTF-8");
  EXPECT_SAYS(says("a\n", "a dog\n"), "valid.txt: word 'dog' at byte 2 is not in the vocabulary");
  EXPECT_SAYS(error_of([&] { Words().load(scratch / "train.txt"); }), "is no folder");
  EXPECT_SAYS(error_of([&] { Words{.min_count = 0}.load(scratch.folder()); }),
              "Words.min_count = 0; expected >= 1");
}

TEST(Words, ReuseAVocabulary) {
  Scratch scratch;
  spill_splits(scratch, "a b\n", "c\n", "b a\n");
  const Vocabulary vocabulary(Unit::Word, {"<unk>", "b", "a", "<eos>", "z"});
  const Corpus corpus = Words().load(scratch.folder(), vocabulary);
  EXPECT_EQ(corpus.vocabulary.fingerprint(), vocabulary.fingerprint());
  EXPECT_EQ(ids_of(corpus.train.tokens), (std::vector<int64_t>{2, 1, 3}));
  EXPECT_EQ(ids_of(corpus.valid.tokens), (std::vector<int64_t>{0, 3}));
  EXPECT_EQ(ids_of(load_tokens(scratch / "test.txt", vocabulary)), (std::vector<int64_t>{1, 2, 3}));
  EXPECT_SAYS(error_of([&] { Words().load(scratch.folder(), Vocabulary::bytes()); }),
              "the vocabulary given is of bytes; this task's is of words");
}

TEST(Bytes, OneFileIsCutByItsShares) {
  Scratch scratch;
  std::mt19937 random(3);
  for (int trial = 0; trial < 60; ++trial) {
    std::string text(50 + random() % 3000, ' ');
    for (char& byte : text) byte = static_cast<char>(random());
    if (trial == 0) text.resize(60);
    spill(scratch / "input.txt", text);
    const SplitShares shares{trial ? 0.05 + double(random() % 40) / 100 : 0.05, trial ? 0.2 : 0.05};
    const Corpus corpus = Bytes{shares}.load(trial % 2 ? scratch.folder() : scratch / "input.txt");
    std::vector<int64_t> all = ids_of(corpus.train.tokens);
    for (const at::Tensor& part : {corpus.valid.tokens, corpus.test.tokens}) {
      for (const int64_t id : ids_of(part)) all.push_back(id);
    }
    ASSERT_EQ(corpus.vocabulary.decode(all), text);  // nothing lost, nothing twice, in order
    EXPECT_NEAR(corpus.valid.tokens.numel(), shares.valid * double(text.size()), 1.01);
    EXPECT_NEAR(corpus.test.tokens.numel(), shares.test * double(text.size()), 1.01);
    if (trial == 0) {
      EXPECT_EQ(corpus.train.tokens.numel(), 54);
    }
    EXPECT_EQ(corpus.vocabulary.size(), 256);
  }
}

TEST(Bytes, RefuseBadInput) {
  Scratch scratch;
  spill(scratch / "short", "0123456789012345678");
  EXPECT_SAYS(error_of([&] { Bytes().load(scratch / "short"); }), "the validation split of ");
  EXPECT_SAYS(error_of([&] { Bytes{{0.5, 0.5}}.load(scratch / "short"); }), "nothing to train on");
  EXPECT_SAYS(error_of([&] {
                Bytes{{0.0, 0.5}}.load(scratch / "short");
              }),
              "Bytes.valid_share = 0; expected in (0, 0.5]");
  EXPECT_SAYS(error_of([&] { Bytes().load(scratch.folder()); }), "or input.txt");
  EXPECT_SAYS(error_of([&] { Bytes().load("/dev/null"); }), "is no folder");
}

TEST(Characters, AreSplitBetweenCharacters) {
  Scratch scratch;
  std::mt19937 random(4);
  for (int trial = 0; trial < 60; ++trial) {
    std::string text = "ab ä戦😀-\n\t\r";
    text += random_text(random, 100 + random() % 300, 40);
    if (trial == 0) text = "ab ä戦😀-\n\t\r" + random_text(random, 400000, 40);
    spill(scratch / "a.txt", text);
    const Corpus corpus = Characters().load(scratch / "a.txt");
    std::vector<int64_t> all = ids_of(corpus.train.tokens);
    for (const at::Tensor& part : {corpus.valid.tokens, corpus.test.tokens}) {
      for (const int64_t id : ids_of(part)) all.push_back(id);
    }
    ASSERT_EQ(all, corpus.vocabulary.encode(text));
    ASSERT_EQ(corpus.vocabulary.decode(all), text);
    const std::string test = corpus.vocabulary.decode(ids_of(corpus.test.tokens));
    EXPECT_NEAR(double(test.size()), 0.05 * double(text.size()), 4.01);
  }
}

TEST(Characters, RefuseBadInput) {
  Scratch scratch;
  const auto says = [&](const std::string& train, const std::string& valid) {
    spill_splits(scratch, train, valid, "aa");
    return error_of([&] { Characters().load(scratch.folder()); });
  };
  EXPECT_SAYS(says("ab", "abß"),
              "valid.txt: character 'ß' at byte 2 is not in the vocabulary of 2");
  EXPECT_SAYS(says("ab\xe6\x88", "ab"), "train.txt: byte 2 (0xe6) is not UTF-8");
  EXPECT_SAYS(says(std::string("a\0b\0", 4), "ab"), "binary or UTF-16");
  EXPECT_SAYS(says("ab",
                   "\xEF\xBB\xBF"
                   "abß"),
              "character 'ß' at byte 5");
  EXPECT_SAYS(says("ab", "a"), "has 1 character; expected at least 2");
}

TEST(Characters, BecomeUnknownWhereAskedFor) {
  Scratch scratch;
  spill_splits(scratch, "aabbc", "abß", "cc");
  const std::string plain = error_of([&] { Characters().load(scratch.folder()); });
  EXPECT_SAYS(plain, "valid.txt: character 'ß' at byte 2 is not in the vocabulary of 3 characters");
  EXPECT_SAYS(plain, "task-min-count 2 makes rare ones <unk>; task 'bytes' takes any text");
  const Characters task{.min_count = 2};
  const Corpus corpus = task.load(scratch.folder());
  EXPECT_EQ(corpus.vocabulary.serialize(), "# deq vocabulary: character\na\nb\n<unk>\n");
  EXPECT_EQ(ids_of(corpus.train.tokens), (std::vector<int64_t>{0, 0, 1, 1, 2}));
  EXPECT_EQ(ids_of(corpus.valid.tokens), (std::vector<int64_t>{0, 1, 2}));
  EXPECT_EQ(ids_of(task.load(scratch.folder(), corpus.vocabulary).test.tokens),
            (std::vector<int64_t>{2, 2}));
  EXPECT_EQ(corpus.vocabulary.decode({0, 2, 1}), "a<unk>b");
}

// Nothing is rare in training, and still what comes later has a token.
TEST(Tasks, UnknownIsThereWhereAskedForThoughNothingIsRare) {
  Scratch scratch;
  spill_splits(scratch, "a a\nb b\n", "a c\n", "a b\n");
  const Corpus words = Words{.min_count = 2}.load(scratch.folder());
  EXPECT_EQ(words.vocabulary.token(words.valid.tokens[1].item<int64_t>()), "<unk>");
  EXPECT_EQ(words.vocabulary.size(), 4);  // a, b, <eos>, <unk>
  const Corpus characters = Characters{.min_count = 2}.load(scratch.folder());
  EXPECT_EQ(characters.vocabulary.token(characters.valid.tokens[2].item<int64_t>()), "<unk>");
  EXPECT_SAYS(error_of([&] { Words().load(scratch.folder()); }), "which has no <unk>");
}

struct TaskChoice {
  Task task;
  static void fields(auto& self, auto&& field) { field("task", self.task, "the data"); }
};

TEST(Tasks, AreOptions) {
  TaskChoice options;
  assign_options(options, {{"task", "bytes"}, {"task_valid_share", "0.1"}});
  ASSERT_TRUE(options.task.is<Bytes>());
  EXPECT_EQ(options.task.get_if<Bytes>()->shares.valid, 0.1);
  EXPECT_STREQ(metric_name(options.task), "bits per byte");
  EXPECT_STREQ(unit_name(options.task), "byte");
  EXPECT_SAYS(error_of([&] {
                assign_options(options, {{"task", "pixels"}});
              }),
              "known: words, bytes, characters, copy-memory");
}

}  // namespace
}  // namespace deq
