#include "deq/data/sequences.h"

#include <gtest/gtest.h>

#include <map>

#include "deq/data/random.h"
#include "deq/data/readers.h"
#include "tests/base/scratch.h"

namespace deq {
namespace {

using testing::error_of;

/// Sequence s is s, s + 1000, s + 2000 ...; targets one more.
Split counting(int64_t sequences, int64_t length, int64_t answer = 0) {
  const at::Tensor tokens = at::arange(sequences, at::kLong).unsqueeze(1) +
                            1000 * at::arange(length, at::kLong).unsqueeze(0);
  return {.tokens = tokens, .targets = tokens + 1, .answer = answer};
}

/// The sequences of a segment, checked to be whole and to have their targets.
std::vector<int64_t> ids_of(const Batch& segment, int64_t length) {
  EXPECT_TRUE(segment.reset);
  EXPECT_EQ(segment.tokens.size(1), length);
  EXPECT_TRUE(at::equal(segment.tokens + 1, segment.targets));
  const at::Tensor first = segment.tokens.select(1, 0).contiguous();
  EXPECT_TRUE(at::equal(segment.tokens,
                        first.unsqueeze(1) + 1000 * at::arange(length, at::kLong).unsqueeze(0)));
  const int64_t* data = first.data_ptr<int64_t>();
  return {data, data + first.numel()};
}

TEST(SequenceStream, EveryEpochIsAPermutationOfItsOwn) {
  std::mt19937_64 random(1);
  for (int trial = 0; trial < 100; ++trial) {
    const int64_t count = 1 + int64_t(random() % 60), length = 1 + int64_t(random() % 9);
    const int64_t batch = 1 + int64_t(random() % uint64_t(count));
    SequenceStream stream(counting(count, length, 1), batch, int64_t(random() % 100));
    EXPECT_EQ(stream.segments_per_epoch(), count / batch);
    EXPECT_EQ(stream.tokens_per_segment(), batch * length);
    std::vector<std::vector<int64_t>> epochs;
    for (int epoch = 0; epoch < 3; ++epoch) {
      std::vector<int64_t> order;
      for (int64_t k = 0; k < count / batch; ++k) {
        EXPECT_EQ(stream.epoch(), epoch);
        const Batch segment = stream.next();
        EXPECT_EQ(segment.answer, 1);
        const auto ids = ids_of(segment, length);
        EXPECT_EQ(int64_t(ids.size()), batch);
        order.insert(order.end(), ids.begin(), ids.end());
      }
      std::vector<int64_t> sorted = order;
      std::sort(sorted.begin(), sorted.end());
      EXPECT_EQ(std::unique(sorted.begin(), sorted.end()), sorted.end()) << "twice a sequence";
      EXPECT_EQ(int64_t(order.size()), count - count % batch);
      epochs.push_back(order);
    }
    if (count >= 20) {
      EXPECT_NE(epochs[0], epochs[1]);
      EXPECT_NE(epochs[1], epochs[2]);
      EXPECT_FALSE(std::is_sorted(epochs[0].begin(), epochs[0].end()));
    }
  }
}

TEST(SequenceStream, WhatIsDroppedChangesWithTheEpoch) {
  SequenceStream stream(counting(10, 2), 4, 3);
  std::map<int64_t, int> seen;
  for (int k = 0; k < 2 * 30; ++k) {
    for (const int64_t id : ids_of(stream.next(), 2)) ++seen[id];
  }
  EXPECT_EQ(seen.size(), 10u);
  for (const auto& [id, times] : seen) EXPECT_NEAR(times, 24, 12) << id;
}

TEST(SequenceStream, SeekGoesOnExactlyWhateverTheGlobalGenerator) {
  std::mt19937_64 random(2);
  for (int trial = 0; trial < 60; ++trial) {
    const Split split = counting(5 + int64_t(random() % 40), 3);
    const int64_t batch = 1 + int64_t(random() % 5), seed = int64_t(random() % 9);
    SequenceStream first(split, batch, seed), second(split, batch, seed);
    for (uint64_t step = random() % 60; step > 0; --step) first.next();
    at::manual_seed(random());
    if (trial % 2) second.next();
    second.seek(first.position());
    EXPECT_EQ(second.epoch(), first.epoch());
    for (int step = 0; step < 20; ++step) {
      const Batch a = first.next(), b = second.next();
      EXPECT_TRUE(at::equal(a.tokens, b.tokens));
      EXPECT_TRUE(at::equal(a.targets, b.targets));
    }
  }
  SequenceStream one(counting(50, 2), 50, 1), two(counting(50, 2), 50, 2);
  EXPECT_FALSE(at::equal(one.next().tokens, two.next().tokens));
}

TEST(SequenceStream, RefusesWhatItCannotRead) {
  const Split good = counting(6, 4);
  EXPECT_NO_THROW(SequenceStream(good, 6, 1));
  EXPECT_SAYS(error_of([&] { SequenceStream(good, 7, 1); }),
              "batch = 7 of 6 training sequences; expected <= 6");
  EXPECT_SAYS(error_of([&] { SequenceStream(good, 0, 1); }), "batch = 0; expected >= 1");
  EXPECT_SAYS(error_of([&] { SequenceEvaluationStream(good, 0); }), "batch = 0; expected >= 1");
  EXPECT_SAYS(error_of([&] { SequenceStream(good, 1, 1).seek(-1); }), "position = -1");
  const auto says = [](const Split& split) {
    const std::string message = error_of([&] { SequenceStream(split, 1, 1); });
    EXPECT_EQ(error_of([&] { SequenceEvaluationStream(split, 1); }), message);
    return message;
  };
  EXPECT_SAYS(says({good.tokens, good.targets.narrow(1, 0, 3)}),
              "are (6, 4) Long, their targets (6, 3)");
  EXPECT_SAYS(says({good.tokens, {}}), "their targets undefined");
  EXPECT_SAYS(says({good.tokens.to(at::kInt), good.targets}), "are (6, 4) Int");
  EXPECT_SAYS(says({good.tokens.view({24}), good.targets.view({24})}), "are (24) Long");
  EXPECT_SAYS(says({good.tokens.narrow(0, 0, 0), good.targets.narrow(0, 0, 0)}), "are (0, 4) Long");
  EXPECT_SAYS(says({good.tokens, good.targets, 5}), "an answer of 5 positions in sequences of 4");
  at::Tensor targets = good.targets.clone();
  targets[2].fill_(-1);
  EXPECT_SAYS(says({good.tokens, targets}), "sequence 2 has no target");
}

TEST(SequenceEvaluationStream, EachSequenceOnceInOrder) {
  std::mt19937_64 random(3);
  for (int trial = 0; trial < 100; ++trial) {
    const int64_t count = 1 + int64_t(random() % 50), batch = 1 + int64_t(random() % 60);
    SequenceEvaluationStream stream(counting(count, 3, 2), batch);
    EXPECT_EQ(stream.targets(), 3 * count);
    int64_t expected = 0;
    while (const auto segment = stream.next()) {
      EXPECT_EQ(segment->first_lane, expected);
      EXPECT_EQ(segment->answer, 2);
      EXPECT_EQ(segment->tokens.size(0), std::min(batch, count - expected));
      for (const int64_t id : ids_of(*segment, 3)) EXPECT_EQ(id, expected++);
    }
    EXPECT_EQ(expected, count);
  }
}

TEST(SequenceEvaluationStream, CountsScoredTargetsAndOwnsItsMemory) {
  Split split = counting(4, 3);
  split.targets = split.targets.clone();
  split.targets.select(1, 0).fill_(-1);
  SequenceEvaluationStream stream(split, 4);
  EXPECT_EQ(stream.targets(), 8);
  stream.next()->tokens.zero_();
  EXPECT_TRUE(at::equal(split.tokens, counting(4, 3).tokens));
}

TEST(SequenceStream, ManySmallNumbersAreReadAsIfTheyWereLarge) {
  const at::Tensor tokens = at::randint(256, {7, 5}, at::kLong),
                   targets = at::randint(-1, 100, {7, 5}, at::kLong).fill_diagonal_(3);
  const Split large{.tokens = tokens, .targets = targets.clamp_min(0)};
  const Split small{.tokens = tokens.to(at::kByte), .targets = large.targets.to(at::kChar)};
  SequenceStream a(large, 3, 2), b(small, 3, 2);
  for (int i = 0; i < 4; ++i) {
    const Batch expected = a.next(), found = b.next();
    EXPECT_TRUE(at::equal(found.tokens, expected.tokens));
    EXPECT_TRUE(at::equal(found.targets, expected.targets));
  }
  const Split wrong{.tokens = tokens.to(at::kChar), .targets = targets};
  EXPECT_THROW(SequenceEvaluationStream(wrong, 3), Error);
}

TEST(Readers, ReadBothKinds) {
  const Split text{.tokens = at::arange(41, at::kLong)};
  TrainingReader lanes(text, {.batch = 4, .length = 5});
  EXPECT_EQ(lanes.tokens_per_segment(), 20);
  EXPECT_TRUE(lanes.next().reset);
  EXPECT_FALSE(lanes.next().reset);
  EXPECT_EQ(lanes.position(), 2);
  EXPECT_EQ(EvaluationReader(text, {.lanes = 2, .batch = 2, .length = 5}).targets(), 40);

  const Split sequences = counting(9, 3, 1);
  TrainingReader reader(sequences, {.batch = 4, .length = 5, .seed = 7});
  SequenceStream plain(sequences, 4, 7);
  plain.seek(3);
  reader.seek(3);
  EXPECT_TRUE(at::equal(reader.next().tokens, plain.next().tokens));
  EXPECT_EQ(reader.tokens_per_segment(), 12);
  EvaluationReader evaluation(sequences, {.lanes = 100, .batch = 4, .length = 1});
  EXPECT_EQ(evaluation.targets(), 27);
  EXPECT_EQ(evaluation.next()->tokens.sizes(), (at::IntArrayRef{4, 3}));
}

}  // namespace
}  // namespace deq
