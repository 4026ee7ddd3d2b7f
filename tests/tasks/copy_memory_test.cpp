#include "deq/tasks/copy_memory.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "deq/data/entropy.h"
#include "deq/data/random.h"
#include "deq/tasks/bytes.h"
#include "deq/tasks/characters.h"
#include "deq/tasks/tasks.h"
#include "deq/tasks/words.h"
#include "tests/base/scratch.h"

namespace deq {
namespace {

using testing::error_of;

std::vector<int64_t> row_of(const at::Tensor& matrix, int64_t row) {
  const int64_t* first = matrix.data_ptr<int64_t>() + row * matrix.size(1);
  return {first, first + matrix.size(1)};
}

std::vector<const Split*> splits_of(const Corpus& corpus) {
  return {&corpus.train, &corpus.valid, &corpus.test};
}

CopyMemory random_task(std::mt19937_64& random) {
  return {.delay = int64_t(1 + random() % (random() % 2 ? 8 : 300)),
          .ending = random() % 2 ? Ending::Recall : Ending::Delimiter,
          .train_sequences = int64_t(1 + random() % 40),
          .valid_sequences = int64_t(1 + random() % 20),
          .test_sequences = int64_t(1 + random() % 30),
          .seed = int64_t(random() % 1000)};
}

/// The definition, position by position; t counts from 1 as in the paper.
TEST(CopyMemory, IsWhatThePaperSays) {
  std::mt19937_64 random(1);
  for (int trial = 0; trial < 200; ++trial) {
    const CopyMemory task = random_task(random);
    const Corpus corpus = task.load("");
    const int64_t T = task.delay,
                  sizes[] = {task.train_sequences, task.valid_sequences, task.test_sequences};
    for (size_t k = 0; k < 3; ++k) {
      const Split& split = *splits_of(corpus)[k];
      ASSERT_EQ(split.tokens.sizes(), (at::IntArrayRef{sizes[k], T + 20}));
      ASSERT_EQ(split.targets.sizes(), split.tokens.sizes());
      ASSERT_EQ(split.answer, 10);
      for (int64_t s = 0; s < sizes[k]; ++s) {
        const auto x = row_of(split.tokens, s), y = row_of(split.targets, s);
        for (int64_t t = 1; t <= T + 20; ++t) {
          const int64_t token = x[size_t(t - 1)], target = y[size_t(t - 1)];
          if (t <= 10) {
            ASSERT_TRUE(token >= 1 && token <= 8) << t;
          } else if (t == T + 10 || (t > T + 10 && task.ending == Ending::Recall)) {
            ASSERT_EQ(token, 9) << t;
          } else {
            ASSERT_EQ(token, 0) << t;
          }
          ASSERT_EQ(target, t <= T + 10 ? 0 : x[size_t(t - T - 11)]) << t;
        }
      }
    }
  }
}

TEST(CopyMemory, SplitsAreStreamsOfTheirOwn) {
  std::mt19937_64 random(2);
  for (int trial = 0; trial < 40; ++trial) {
    const CopyMemory task = random_task(random);
    CopyMemory other = task;
    other.train_sequences += int64_t(random() % 30);
    other.valid_sequences += int64_t(random() % 30);
    other.test_sequences += int64_t(random() % 30);
    const Corpus one = task.load(""), two = other.load("");
    for (size_t k = 0; k < 3; ++k) {
      const at::Tensor &few = splits_of(one)[k]->tokens, &many = splits_of(two)[k]->tokens;
      EXPECT_TRUE(at::equal(few, many.narrow(0, 0, few.size(0))));
    }
    CopyMemory seeded = task;
    seeded.seed += 1;
    EXPECT_FALSE(at::equal(one.train.tokens, seeded.load("").train.tokens));
  }
  // No sequence is in two splits (of 8^10; the seed is fixed).
  const Corpus corpus = CopyMemory{.delay = 1}.load("");
  std::set<std::vector<int64_t>> seen;
  for (const Split* split : splits_of(corpus)) {
    for (int64_t s = 0; s < std::min<int64_t>(1000, split->tokens.size(0)); ++s)
      EXPECT_TRUE(seen.insert(row_of(split->tokens, s)).second);
  }
}

TEST(CopyMemory, LeavesTheGlobalGeneratorAlone) {
  at::manual_seed(5);
  const at::Tensor expected = at::rand({4});
  at::manual_seed(5);
  const Corpus first = CopyMemory{.delay = 3}.load("");
  EXPECT_TRUE(at::equal(at::rand({4}), expected));
  EXPECT_TRUE(at::equal(CopyMemory{.delay = 3}.load("").train.tokens, first.train.tokens));
}

TEST(CopyMemory, SymbolsAreUniformAndIndependent) {
  const Corpus corpus = CopyMemory{.delay = 1}.load("");
  const at::Tensor symbols = corpus.train.tokens.narrow(1, 0, 10);  // (20000, 10)
  for (int64_t i = 0; i < 10; ++i) {
    const at::Tensor counts = at::bincount(symbols.select(1, i), {}, 9);
    for (int64_t symbol = 1; symbol <= 8; ++symbol)  // 2500 expected; five deviations of 47
      EXPECT_NEAR(double(counts[symbol].item<int64_t>()), 2500, 235) << i;
    // The 64 pairs of neighbours: 312.5 each, five deviations of 17.5.
    if (i == 0) continue;
    const at::Tensor pairs =
        at::bincount((symbols.select(1, i - 1) - 1) * 8 + symbols.select(1, i) - 1, {}, 64);
    EXPECT_LT((pairs.to(at::kDouble) - 312.5).abs().max().item<double>(), 90) << i;
  }
}

/// p by position of a model that remembers nothing, and its loss over a split's targets.
TEST(CopyMemory, MemorylessLossIsTenLnEightOverTheLength) {
  for (const int64_t delay : {1, 5, 100, 400}) {
    const CopyMemory task{.delay = delay, .train_sequences = 20000, .test_sequences = 50};
    EXPECT_NEAR(task.memoryless_loss(), 10 * std::log(8.0) / double(delay + 20), 1e-12);
    const Corpus corpus = task.load("");
    at::Tensor p = at::zeros({delay + 20, 10}, at::kDouble);
    p.narrow(0, 0, delay + 10).select(1, 0).fill_(1);
    p.narrow(0, delay + 10, 10).narrow(1, 1, 8).fill_(1.0 / 8);
    const at::Tensor all = p.unsqueeze(0).expand({50, delay + 20, 10});
    const at::Tensor of_target = all.gather(2, corpus.test.targets.unsqueeze(2));
    EXPECT_NEAR(-of_target.log().mean().item<double>(), task.memoryless_loss(), 1e-12);
    // What `deq data info` measures from the training targets is that, up to the smoothing.
    EXPECT_NEAR(positional_nats(corpus.train, corpus.test, 10), task.memoryless_loss(),
                3e-3 * task.memoryless_loss());
  }
}

TEST(CopyMemory, RefusesBadInput) {
  const auto says = [](const CopyMemory& task, const std::string& data = "") {
    return error_of([&] { task.load(data); });
  };
  EXPECT_SAYS(says({.delay = 0}), "CopyMemory.delay = 0; expected in [1, 100000]");
  EXPECT_SAYS(says({.delay = 100001}), "expected in [1, 100000]");
  EXPECT_SAYS(says({.train_sequences = 0}), "CopyMemory.train_sequences = 0; expected >= 1");
  EXPECT_SAYS(says({.seed = -1}), "CopyMemory.seed = -1; expected >= 0");
  EXPECT_SAYS(says({}, "data/ptb"),
              "data = 'data/ptb'; expected none: task copy-memory makes its own sequences");
  EXPECT_SAYS(says({.delay = 100000}), "sequences of 100020 symbols are 2.3e+09 positions");
  EXPECT_SAYS(says({.train_sequences = INT64_MAX}), "expected <= 536870912");
  EXPECT_SAYS(error_of([] { CopyMemory().load("", Vocabulary::bytes()); }),
              "is of 256 bytes; task copy-memory has the symbols 0 to 9");
  const Vocabulary own = CopyMemory{.delay = 1}.load("").vocabulary;
  EXPECT_EQ((CopyMemory{.delay = 2}.load("", own).vocabulary.size()), 10);
  for (const Task& text : {Task(Words{}), Task(Bytes{}), Task(Characters{})})
    EXPECT_SAYS(error_of([&] { load(text, ""); }), "data is not set");
}

TEST(CopyMemory, ItsSymbolsAreSpaced) {
  const Vocabulary vocabulary = CopyMemory{.delay = 1}.load("").vocabulary;
  EXPECT_EQ(vocabulary.serialize().substr(0, 27), "# deq vocabulary: symbol\n0\n");
  EXPECT_EQ(Vocabulary::parse(vocabulary.serialize(), "text").fingerprint(),
            vocabulary.fingerprint());
  EXPECT_EQ(vocabulary.encode(" 1 2\n9\t0\n"), (std::vector<int64_t>{1, 2, 9, 0}));
  EXPECT_EQ(vocabulary.decode({1, 2, 9, 0}), "1 2 9 0");
  EXPECT_EQ(vocabulary.decode_next(3, 4), " 3");
  EXPECT_SAYS(error_of([&] { vocabulary.encode("1 12"); }),
              "symbol '12' at byte 2 is not in the vocabulary of 10 symbols");
  // To symbols <eos> is one like any other.
  const Vocabulary odd(Unit::Symbol, {"<eos>", "<unk>", "a"});
  EXPECT_EQ(odd.decode({2, 0, 2}), "a <eos> a");
  EXPECT_EQ(odd.encode("a\n<eos>"), (std::vector<int64_t>{2, 0}));
  EXPECT_SAYS(error_of([&] { odd.encode("b"); }), "symbol 'b' at byte 0 is not in the vocabulary");
  EXPECT_STREQ(metric_name(Unit::Symbol), "cross-entropy");
  EXPECT_EQ(metric_value(Unit::Symbol, 0.25), 0.25);
}

TEST(Entropy, ByPositionIgnoresWhatIsNotScored) {
  const Split train{.tokens = at::zeros({3, 2}, at::kLong),
                    .targets = at::tensor({-1, 1, -1, 1, 0, 2}, at::kLong).view({3, 2})};
  const Split test{.tokens = at::zeros({1, 2}, at::kLong),
                   .targets = at::tensor({-1, 2}, at::kLong).view({1, 2})};
  EXPECT_NEAR(positional_nats(train, test, 4), -std::log((1 + 0.25) / (3 + 1)), 1e-12);
  EXPECT_SAYS(error_of([&] { positional_nats({.tokens = train.tokens}, test, 4); }),
              "not sequences of one length");
}

TEST(RandomStream, IsTheSameEverywhere) {
  // By an implementation of seed_seq and mt19937_64 in Python.
  std::mt19937_64 random = random_stream({1, 2});
  EXPECT_EQ(random(), 960524919686204622u);
  EXPECT_EQ(random(), 8035120714412365424u);
  EXPECT_EQ(row_of(CopyMemory{.delay = 1, .train_sequences = 1}.load("").train.targets, 0),
            (std::vector<int64_t>{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 3, 3, 7, 5, 4, 8, 6, 5, 7}));
  EXPECT_EQ(permutation(10, random_stream({1, 0})),
            (std::vector<int64_t>{2, 1, 8, 9, 6, 7, 3, 5, 0, 4}));
  std::set<uint64_t> firsts;
  for (const int64_t a : {int64_t(0), int64_t(1), int64_t(1) << 32, INT64_MAX}) {
    for (const int64_t b : {int64_t(0), int64_t(1), int64_t(1) << 32}) {
      firsts.insert(random_stream({a, b})());
    }
  }
  EXPECT_EQ(firsts.size(), 12u);
}

}  // namespace
}  // namespace deq
